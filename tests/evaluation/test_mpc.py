"""evaluate agent=mpc on a real environment: from options to files, with a random world model."""

import csv
from pathlib import Path

import pytest
import torch

from tests import tiny
from vjepa_wm import evaluate
from vjepa_wm.agent import MPCAgent
from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.evaluation.reels import read_sheet
from vjepa_wm.evaluation.tasks import load_task_set
from vjepa_wm.files import read_json
from vjepa_wm.frame_predictor import FramePredictor
from vjepa_wm.loading import load_world_model

TINY = ["env=reacher", "agent=mpc", "episodes=3", "max_steps=3", "planner.horizon=2"]
TINY += ["planner.num_samples=8", "planner.num_elites=2", "planner.iterations=1"]


@pytest.fixture
def run(world_model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the verb in an empty folder."""

    def run(*options: str) -> None:
        monkeypatch.chdir(tmp_path)
        options = (f"model={world_model_folder}", *options)
        monkeypatch.setattr("sys.argv", ["evaluate", *TINY, *options])
        evaluate.main()

    return run


def episodes_of(folder: Path) -> list[dict[str, str]]:
    """Read the figures of every episode, those of the clock left out."""
    with open(folder / "episodes.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert all(float(line.pop("seconds_per_action")) > 0 for line in lines)
    return lines


def test_frozen_tasks_are_played_and_written_down(
    run, world_model_folder: Path, tmp_path: Path, capsys
) -> None:
    """The same figures whether episodes run side by side or one after another."""
    run("out=together")
    run("out=alone", "batch=1")
    shown = capsys.readouterr().out
    assert shown.startswith("reacher, near goals, frozen tasks, at most 3 steps")
    assert "arm_position_m final / best" in shown
    together, alone = (episodes_of(tmp_path / name) for name in ("together", "alone"))
    tasks = load_task_set("reacher").select("near", 3)
    assert [int(line["seed"]) for line in together] == [task.seed for task in tasks]
    for line, task in zip(together, tasks, strict=True):
        assert (line["agent"], line["steps"], line["fault"]) == ("mpc", "3", "")
        assert float(line["best_arm_position_m"]) <= task.distance["arm_position_m"]
        assert float(line["final_arm_position_m"]) != task.distance["arm_position_m"]
    assert [line["seed"] for line in alone] == [line["seed"] for line in together]
    summary = read_json(tmp_path / "together" / "summary.json")
    assert [row["agent"] for row in summary["rows"]] == ["mpc"]
    assert summary["rows"][0]["episodes"] == 3
    assert summary["digests"] == {
        "tasks": load_task_set("reacher").digest,
        "model": load_checkpoint(world_model_folder).digest,
    }


def test_a_decoder_draws_what_the_last_plan_was_imagined_to_lead_to(
    run, world_model_folder: Path, tmp_path: Path, capsys
) -> None:
    """In the pictures of mpc alone, and nothing of its acting changes."""
    decoder = tiny.save_decoder(tmp_path / "decoder", load_world_model(world_model_folder).encoder)
    run("out=plain")
    run("out=drawn", f"decoder={decoder}", "agent=[random,mpc]")
    mpc = [line for line in episodes_of(tmp_path / "drawn") if line["agent"] == "mpc"]
    assert mpc == episodes_of(tmp_path / "plain")
    for name, sheet in (("plain", "mpc"), ("drawn", "random"), ("drawn", "mpc")):
        strips = read_sheet(tmp_path / name / f"pictures_{sheet}.png").strips
        is_drawn = (name, sheet) == ("drawn", "mpc")
        assert [strip.imagined is not None for strip in strips] == 3 * [is_drawn]
    imagined = [strip.imagined for strip in strips]
    assert imagined[0].shape == strips[0].goal.shape and imagined[0].std() > 1
    assert (imagined[0] != imagined[1]).any()
    page = (tmp_path / "drawn" / "report.html").read_text(encoding="utf-8")
    assert page.count("end of the last plan, imagined") == 3

    for wrong in ("agent=random", "pictures=0"):
        with pytest.raises(SystemExit):
            run("out=none", f"decoder={decoder}", wrong)
        assert "decoder draws what mpc imagines" in capsys.readouterr().err


def test_precision_and_compilation_reach_the_predictor(run, monkeypatch) -> None:
    """As options of the verb; float32 gives float32 weights."""
    built: list[MPCAgent] = []
    compiled: list[FramePredictor] = []
    build = evaluate.build_mpc
    monkeypatch.setattr(evaluate, "build_mpc", lambda *a: built.append(build(*a)) or built[-1])
    monkeypatch.setattr(FramePredictor, "compile_layers", lambda net: compiled.append(net))
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        run(f"precision={precision}", "episodes=1", f"out={precision}", "pictures=0")
        assert next(built[-1].world_model.predictor.parameters()).dtype == dtype
    assert compiled == []
    run("compile=true", "episodes=1", "out=compiled", "pictures=0")
    assert compiled == [built[-1].world_model.predictor]


def test_an_error_budget_of_planner_predictor_and_cost(run, tmp_path: Path, capsys) -> None:
    """On as many tasks as the costly row has; which rows are privileged is said."""
    run("agent=[mpc,true_dynamics,simulator]", "simulator_planner=${planner}", "out=budget")
    shown = capsys.readouterr().out
    assert "privileged, candidates tried out in the true simulator: true_dynamics" in shown
    assert "lost by mpc on 3 tasks [95 %], planner ICEM horizon 2 num_samples 8" in shown
    summary = read_json(tmp_path / "budget" / "summary.json")
    budget = summary["error_budget"]
    assert (budget["tasks"], budget["same_planner"]) == (3, True)
    missed = 1 - summary["rows"][0]["success"]
    assert sum(loss["mean"] for loss in budget["losses"]) == pytest.approx(missed)
    costly = ["agent=[mpc,true_dynamics,simulator]", "true_dynamics_episodes=2"]
    run(*costly, "simulator_planner.num_samples=8", "out=fewer")
    summary = read_json(tmp_path / "fewer" / "summary.json")
    assert [row["episodes"] for row in summary["rows"]] == [3, 2, 3]
    assert (summary["error_budget"]["tasks"], summary["error_budget"]["same_planner"]) == (2, False)
    assert "error_budget" not in read_json_of(run, "agent=mpc", tmp_path)


def test_what_needs_gradients_is_told_so_by_the_simulator_and_loses_no_points(
    run, tmp_path: Path, capsys
) -> None:
    rows = "agent=[mpc,true_dynamics,simulator]"
    run(rows, "planner@simulator_planner=gradient", "simulator_planner.horizon=2", "out=broken")
    assert "no error budget: episodes were stopped" in capsys.readouterr().out
    summary = read_json(tmp_path / "broken" / "summary.json")
    assert "use a planner that needs no gradient" in summary["rows"][-1]["fault"]
    assert "error_budget" not in summary


def read_json_of(run, option: str, folder: Path) -> dict:
    """Run with one more option and read the summary."""
    run(option, "out=other")
    return read_json(folder / "other" / "summary.json")


def test_behaviour_cloning_has_a_row(run, goal_policy_folder: Path, tmp_path: Path) -> None:
    run("agent=[mpc,bc]", f"policy={goal_policy_folder}", "out=both")
    summary = read_json(tmp_path / "both" / "summary.json")
    assert [row["agent"] for row in summary["rows"]] == ["bc", "mpc"]
    assert summary["digests"]["policy"] == load_checkpoint(goal_policy_folder).digest
    lines = episodes_of(tmp_path / "both")
    assert [line["fault"] for line in lines] == [""] * 6
    assert all(float(line["path_length"]) > 0 for line in lines)


def test_the_seed_decides(run, tmp_path: Path) -> None:
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(f"out={out}", f"seed={seed}", "episodes=1")
    first, again, other = (episodes_of(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("planner.horizon=9", "mpc: context_len 1 and horizon 9 make 9 frames"),
        ("context_len=0", "mpc: context_len must be at least 1"),
        ("env.frame_skip=3", "was trained for other actions than env=reacher has"),
        ("agent=bc policy=MODEL", "holds a world_model, wanted a behaviour_cloning"),
        ("planner.horizn=3", "Did you mean 'planner.horizon'"),
    ],
)
def test_bad_options_end_with_one_line(
    run, world_model_folder: Path, option: str, said: str, capsys, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*option.replace("MODEL", str(world_model_folder)).split())
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
