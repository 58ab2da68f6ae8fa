"""Freeze the tasks an environment is evaluated on: python -m vjepa_wm.make_tasks env=push."""

from omegaconf import DictConfig

from vjepa_wm.cli import env_options, progress, verb
from vjepa_wm.evaluation.tasks import make_task_set


@verb("make_tasks")
def main(cfg: DictConfig) -> None:
    """Draw the frozen tasks of an environment; the same options write the same file.

    Example: python -m vjepa_wm.make_tasks env=push
    """
    task_set = make_task_set(
        cfg.out,
        cfg.env.id,
        tasks_per_level=cfg.tasks_per_level,
        command=" ".join(
            [
                "python -m vjepa_wm.make_tasks",
                *env_options(cfg.env),
                f"tasks_per_level={cfg.tasks_per_level}",
            ]
        ),
        progress=progress,
    )
    print(f"{cfg.out}: {len(task_set.tasks)} tasks, digest {task_set.digest}")


if __name__ == "__main__":
    main()
