"""The verbs evaluate and make_tasks from options to files, on an environment without a renderer."""

import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from planners import CEM
from tests import tiny
from tests.evaluation.fake_env import Seeker
from vjepa_wm import evaluate, make_tasks
from vjepa_wm.agent import MPCAgent
from vjepa_wm.checkpoint import save_checkpoint
from vjepa_wm.costs import GoalCost
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.html.report import page
from vjepa_wm.evaluation.tasks import load_task_set
from vjepa_wm.files import read_json
from vjepa_wm.world_model import ActionSpec, WorldModel

ENV = ["env.name=point", "env.id=tests.evaluation.fake_env:fake/PointGoal-v0", "env.image_size=8"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a verb with options, in an empty folder."""

    def run(verb, *options: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["verb", *ENV, *options])
        verb.main()

    return run


def test_all_agents_on_tasks_of_a_file(run, monkeypatch, capsys, tmp_path: Path) -> None:
    """make_tasks writes them, evaluate prints three rows and writes what they are of."""
    run(make_tasks, "tasks_per_level=4", "out=point.json")
    save_checkpoint(tmp_path / "model", {"predictor": torch.nn.Linear(1, 1)}, {"kind": "fake"})
    monkeypatch.setattr(evaluate, "build_mpc", lambda cfg, space: Seeker())
    options = ["level=far", "episodes=4", "tasks=point.json", "model=model", "out=report"]
    run(evaluate, *options, "simulator_planner.horizon=4", "simulator_planner.num_samples=32")
    lines = capsys.readouterr().out.split("\n")
    names = [line.split()[0] for line in lines if line and "[" in line]
    assert names == ["agent", "random", "mpc", "simulator"]
    summary = read_json(tmp_path / "report" / "summary.json")
    assert [row["success"] for row in summary["rows"][1:]] == [1.0, 1.0]
    assert summary["rows"][0]["success"] < 1.0
    config = read_json(tmp_path / "model" / "config.json")
    assert summary["digests"] == {
        "tasks": load_task_set(tmp_path / "point.json").digest,
        "model": config["weights_digest"],
    }
    assert summary["config"]["simulator_planner"]["horizon"] == 4
    assert len((tmp_path / "report" / "episodes.csv").read_text().split("\n")) == 1 + 12 + 1
    assert summary["criteria"] == {"position_m": 0.05} and summary["machine"]
    written = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "mpc: all 4 episodes, failures first" in written
    assert written == page([Path("report")])[0]


def test_pictures_can_be_left_out(run, tmp_path: Path) -> None:
    options = ["agent=random", "tasks=tuning", "episodes=3", "max_steps=2", "out=report"]
    run(evaluate, *options)
    assert [path.name for path in (tmp_path / "report").glob("*.png")] == ["pictures_random.png"]
    run(evaluate, *options, "pictures=0")
    assert list((tmp_path / "report").glob("*.png")) == []
    written = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "No pictures of episodes were recorded" in written


@pytest.mark.parametrize(
    ("agent", "policy", "names"),
    [
        ("all", None, ["random", "mpc", "simulator"]),
        ("all", "runs/p", ["random", "bc", "mpc", "simulator"]),
        ("mpc", "runs/p", ["mpc"]),
        (["simulator", "random", "random"], None, ["random", "simulator"]),
        (["all", "true_dynamics"], None, ["random", "mpc", "true_dynamics", "simulator"]),
    ],
)
def test_rows_are_chosen_by_name(agent, policy, names) -> None:
    options = {"agent": agent, "policy": policy, "true_dynamics_episodes": None, "decoder": None}
    assert evaluate.chosen_agents(OmegaConf.create(options)) == names


def test_a_list_of_agents_with_some_that_break(
    run, monkeypatch, capsys, caplog, tmp_path: Path
) -> None:
    """The table has both rows and counts what was stopped; the files say why."""

    class Broken(Seeker):
        def act(self, obs, *, is_active):
            raise ValueError("no idea")

    monkeypatch.setattr(evaluate, "build_mpc", lambda cfg, space: Broken())
    save_checkpoint(tmp_path / "model", {"predictor": torch.nn.Linear(1, 1)}, {"kind": "fake"})
    options = ["agent=[mpc,random]", "model=model", "tasks=tuning", "episodes=3", "max_steps=2"]
    run(evaluate, *options, "out=report")
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.split("\n")[1:4]] == ["agent", "random", "mpc"]
    assert "3 of 3 episodes of mpc were stopped" in caplog.text
    rows = read_json(tmp_path / "report" / "summary.json")["rows"]
    assert [row["faults"] for row in rows] == [0, 3]
    assert rows[1]["fault"] == "agent, step 0: ValueError: no idea"


def test_an_agent_that_never_made_a_plan_is_reported(run, monkeypatch, tmp_path: Path) -> None:
    class Planless(MPCAgent):
        def act(self, obs, *, is_active):
            raise RuntimeError("no finite cost at all")

    def build(cfg, space):
        spec = ActionSpec((-1.0, -1.0), (1.0, 1.0), 1)
        model = WorldModel(tiny.encoder(), tiny.predictor(), action_spec=spec)
        cost = GoalCost(distance="l2", over_steps="last")
        return Planless(model, CEM(horizon=2), cost, context_len=1, replan_every=1)

    monkeypatch.setattr(evaluate, "build_mpc", build)
    save_checkpoint(tmp_path / "model", {"predictor": torch.nn.Linear(1, 1)}, {"kind": "fake"})
    options = ["agent=mpc", "model=model", "tasks=tuning", "episodes=2", "max_steps=2"]
    run(evaluate, *options, "out=report")
    (row,) = read_json(tmp_path / "report" / "summary.json")["rows"]
    assert row["frames_per_plan"] is None
    assert row["fault"] == "agent, step 0: RuntimeError: no finite cost at all"


def test_tuning_tasks_need_no_file_and_have_no_end(run, tmp_path: Path) -> None:
    run(evaluate, "agent=random", "tasks=tuning", "episodes=130", "max_steps=1", "out=report")
    summary = read_json(tmp_path / "report" / "summary.json")
    assert (summary["rows"][0]["episodes"], summary["digests"]) == (130, {"tasks": ""})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["agent=mcp"], "Did you mean 'mpc'"),
        (["agent=[random,mcp]"], "Did you mean 'mpc'"),
        (["agent=[]"], "wanted one or more of random, bc, mpc"),
        (["agent=bc"], "needs policy=FOLDER, as python -m vjepa_wm.train_bc"),
        (["agent=random", "true_dynamics_episodes=0"], "true_dynamics_episodes: wanted at least 1"),
        (["tasks=tuning", "agent=bc", "policy=nowhere"], "no config.json in"),
        (["tasks=frozn"], "Did you mean 'frozen'"),
        (["tasks=frozen"], "unknown set of frozen tasks 'point'"),
        (["tasks=gone.json"], "gone.json does not exist"),
        (["tasks=tuning", "level=farr"], "Did you mean 'far'"),
        (["tasks=tuning", "episodes=0"], "episodes: wanted at least 1"),
        (["tasks=tuning", "agent=random", "batch=0"], "batch: wanted at least 1"),
        (["tasks=tuning", "agent=random", "pictures=-1"], "pictures: wanted 0 or more episodes"),
        (["tasks=tuning", "agent=random", "max_steps=0"], "max_steps: wanted at least 1"),
        (["tasks=tuning", "agent=simulator", "replan_every=30"], "replan_every: wanted 1 to"),
        (
            ["tasks=tuning", "agent=simulator", "simulator_planner.horizon=0"],
            "simulator: horizon: wanted",
        ),
        (["tasks=tuning", "agent=mpc", "model=nowhere"], "unknown world model 'nowhere'"),
        (["planner@simulator_planner=cen"], "Did you mean 'cem'"),
    ],
)
def test_bad_options_end_with_one_line(
    run, capsys, tmp_path, options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(evaluate, "episodes=3", *options)
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_model_for_other_actions_is_refused() -> None:
    cfg = OmegaConf.create({"model": "other", "env": {"name": "point", "frame_skip": 2}})
    runner = evaluate.EpisodeRunner(ENV[1].removeprefix("env.id="), num_envs=1, image_size=8)
    space = runner.envs[0].action_space
    evaluate.check_actions(ActionSpec((-1.0, -1.0), (1.0, 1.0), 2), cfg, space, "model other")
    for spec in (
        ActionSpec((-1.0, -1.0), (1.0, 1.0), 1),
        ActionSpec((-1.0, -1.0), (1.0, 0.5), 2),
        ActionSpec((-1.0,), (1.0,), 2),
    ):
        with pytest.raises(DataError, match="model other was trained for other actions than"):
            evaluate.check_actions(spec, cfg, space, "model other")
