"""V-JEPA 2-AC's published files: told apart, read strictly, and planned with."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from planners import CEM
from tests import published_files, tiny
from tests.golden_files import draw_parameter
from vjepa_wm.agent import MPCAgent
from vjepa_wm.costs import GoalCost
from vjepa_wm.encoders.families import ENCODERS
from vjepa_wm.encoders.pixels import PixelTransform
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import CheckpointError, SettingError
from vjepa_wm.loading import load_world_model
from vjepa_wm.predictor import load_predictor
from vjepa_wm.token_predictor import TokenPredictor
from vjepa_wm.vjepa2_ac import PREDICTORS, WidePicture
from vjepa_wm.world_model import WorldModel

SIZES = {"latent_dim": 24, "grid": (4, 4), "width": 24, "depth": 2, "num_heads": 2}
NAMES = ("vjepa2_ac_vitg", "vjepa2_ac_droid")
POSE = np.array([0.4, 0.1, 0.3, 3.1, -0.1, 0.2, 0.04], np.float32)
HORIZON = 2


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the published predictors tiny, on a tiny encoder of their family."""
    published_files.register(monkeypatch)
    for name in NAMES:
        published = PREDICTORS[name]
        small = dataclasses.replace(
            published, encoder="tiny2", predictor={**published.predictor, **SIZES}
        )
        monkeypatch.setitem(PREDICTORS, name, small)


def predictor_weights(name: str, **changes: Any) -> dict[str, Tensor]:
    """Draw the weights of a tiny predictor under our names."""
    config = {**PREDICTORS[name].predictor, "has_extrinsics": name == "vjepa2_ac_vitg", **changes}
    shapes = TokenPredictor(**config).state_dict()
    return {key: draw_parameter(key, tuple(value.shape)) for key, value in shapes.items()}


def write(path: Path, predictor: dict[str, Tensor], *, encoder: bool = True) -> Path:
    """Write a file as V-JEPA 2-AC's trainer does."""
    content = published_files.content("tiny2", prefix="module.")
    content["predictor"] = {f"module.{key}": value for key, value in predictor.items()}
    if not encoder:
        content = {key: value for key, value in content.items() if "encoder" not in key}
    torch.save(content, path)
    return path


def make_agent(
    world: WorldModel, goal: np.ndarray | None = None, *, num_samples: int = 32
) -> MPCAgent:
    planner = CEM(horizon=HORIZON, num_samples=num_samples, num_elites=4, iterations=4)
    cost = GoalCost(distance="l1", over_steps="last")
    agent = MPCAgent(world, planner, cost, context_len=2, replan_every=1)
    if goal is not None:
        agent.reset(goal=goal)
    return agent


def plan_once(
    world: WorldModel, obs: dict[str, np.ndarray], goal: np.ndarray, *, num_samples: int = 32
) -> np.ndarray:
    """Return the second action: the first of those with a past."""
    agent = make_agent(world, goal, num_samples=num_samples)
    agent.act(obs)
    return agent.act(obs)


@pytest.mark.parametrize(("name", "count"), [("vjepa2_ac_vitg", 305.2), ("vjepa2_ac_droid", 305.2)])
def test_parameter_counts_are_the_published_ones(name: str, count: float, monkeypatch) -> None:
    """In millions, of the full size, without allocating it."""
    monkeypatch.undo()
    with torch.device("meta"):
        predictor = TokenPredictor(
            **PREDICTORS[name].predictor, has_extrinsics=name == "vjepa2_ac_vitg"
        )
    assert round(sum(p.numel() for p in predictor.parameters()) / 1e6, 1) == count


@pytest.mark.parametrize("name", NAMES)
def test_predictor_and_encoder_come_out_of_one_file(name: str, tmp_path: Path) -> None:
    """The encoder is the student's, which is half of the average in the tiny file."""
    weights = predictor_weights(name)
    world = load_world_model(name, write(tmp_path / "ac.pt", weights), dtype="fp32")
    loaded = world.predictor.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], value) for key, value in weights.items())
    average = published_files.encoder_weights("tiny2")
    assert torch.equal(world.encoder.vit.norm.weight, average["norm.weight"] / 2)
    assert world.encoder.name == "tiny2/encoder"
    assert not any(p.requires_grad for p in world.parameters())
    assert world.takes_proprio == (name == "vjepa2_ac_vitg")
    assert isinstance(world.encoder.transform, WidePicture) == (name == "vjepa2_ac_vitg")
    assert len(world.action_spec.low) == len(world.action_spec.units) == 7


@pytest.mark.parametrize("name", NAMES)
def test_it_plans_to_a_goal_image(name: str, tmp_path: Path) -> None:
    """With the observed pose where it is wanted, and there its value counts."""
    path = write(tmp_path / "ac.pt", predictor_weights(name))
    world = load_world_model(name, path, dtype="fp32")
    goal, frame = tiny.pixels(2, 16, 16).numpy()
    action = plan_once(world, {"pixels": frame, "proprio": POSE}, goal)
    assert action.shape == (7,)
    assert np.all(np.abs(action) <= np.array(world.action_spec.high) + 1e-6)
    moved = plan_once(world, {"pixels": frame, "proprio": POSE + np.float32(0.02)}, goal)
    assert np.array_equal(action, moved) == (name == "vjepa2_ac_droid")


def test_the_published_search_plans_with_it(tmp_path: Path) -> None:
    """Its preset fits the actions: no rotation, steps of at most 5 cm, the gripper at most 0.75."""
    path = write(tmp_path / "ac.pt", predictor_weights("vjepa2_ac_vitg"))
    world = load_world_model("vjepa2_ac_vitg", path, dtype="fp32")
    planner = instantiate(OmegaConf.load(tiny.CONFIGS / "planner" / "vjepa2_ac.yaml"))
    planner.planner.num_samples, planner.planner.iterations = 16, 2
    goal, frame = tiny.pixels(2, 16, 16).numpy()
    cost = GoalCost(distance="l1", over_steps="last")
    agent = MPCAgent(world, planner, cost, context_len=1, replan_every=1)
    agent.reset(goal=goal)
    action = agent.act({"pixels": frame, "proprio": POSE})
    assert np.all(np.abs(action[:3]) <= 0.05 + 1e-6) and action[:3].any()
    assert not action[3:6].any() and abs(action[6]) <= 0.75


def test_robots_plan_together_as_alone(tmp_path: Path) -> None:
    """Each from its own pose; that of a robot at rest is not looked at."""
    path = write(tmp_path / "ac.pt", predictor_weights("vjepa2_ac_vitg"))
    world = load_world_model("vjepa2_ac_vitg", path, dtype="fp32")
    goals, frames = tiny.pixels(2, 3, 16, 16).numpy()
    obs = {"pixels": frames, "proprio": np.stack([POSE, POSE / 2, np.full_like(POSE, np.nan)])}
    agent = make_agent(world, goals)
    is_active = np.array([True, True, False])
    for _ in range(2):  # the second time with a past
        together = agent.act(obs, is_active=is_active)
    alone = plan_once(world, {"pixels": frames[0], "proprio": POSE}, goals[0])
    np.testing.assert_allclose(together[0], alone, atol=1e-5)
    assert not together[2].any()
    with pytest.raises(SettingError, match="finite"):
        agent.act(obs)


def test_signatures_of_other_libraries_pass_the_pose_on(tmp_path: Path) -> None:
    path = write(tmp_path / "ac.pt", predictor_weights("vjepa2_ac_vitg"))
    world = load_world_model("vjepa2_ac_vitg", path, dtype="fp32")
    goal, frame = tiny.pixels(2, 1, 16, 16).numpy()
    wanted = make_agent(world, goal).act({"pixels": frame, "proprio": POSE[None]})
    lerobot = {
        "observation.images.left": torch.from_numpy(frame).movedim(-1, 1) / 255,
        "observation.state": torch.from_numpy(POSE[None]),
    }
    np.testing.assert_array_equal(make_agent(world, goal).select_action(lerobot), wanted)
    stable_worldmodel = {"goal": goal[None], "pixels": frame[None], "proprio": POSE[None, None]}
    np.testing.assert_array_equal(make_agent(world).get_action(stable_worldmodel), wanted)


def test_wrong_units_are_refused_where_the_agent_is_given_them(tmp_path: Path) -> None:
    """Degrees pasted as radians, as in vjepa2's issue 110; a pose forgotten; one too few."""
    path = write(tmp_path / "ac.pt", predictor_weights("vjepa2_ac_vitg"))
    world = load_world_model("vjepa2_ac_vitg", path, dtype="fp32")
    goal, frame = tiny.pixels(2, 16, 16).numpy()
    degrees = np.array([0.4, 0.1, 0.3, -179.26, 90.0, 0.0, 0.04], np.float32)
    for obs, message in [
        ({"proprio": degrees}, "radians .* degrees"),
        ({"proprio": POSE + 1}, "radians|closedness"),
        ({}, "obs has no 'proprio', only pixels"),
        ({"proprio": POSE[:6]}, r"obs\['proprio'\]: wanted \(1, 7\), got \(1, 6\)"),
    ]:
        with pytest.raises(SettingError, match=message):
            plan_once(world, {"pixels": frame, **obs}, goal)


def test_rollouts_refuse_wrong_units_too(tmp_path: Path) -> None:
    path = write(tmp_path / "ac.pt", predictor_weights("vjepa2_ac_vitg"))
    world = load_world_model("vjepa2_ac_vitg", path, dtype="fp32")
    context = world.encode(tiny.pixels(1, 2, 16, 16))
    actions, poses = torch.zeros(1, 3, 2, 7), torch.from_numpy(POSE).expand(1, 2, 7)
    assert world.rollout(context, actions[:, 0, :1], actions, poses).shape == (1, 3, 2, 16, 24)
    with pytest.raises(SettingError, match="degrees"):
        world.rollout(context, actions[:, 0, :1], actions, poses * 57.3)
    with pytest.raises(SettingError, match="needs the observed proprio"):
        world.rollout(context, actions[:, 0, :1], actions)


def test_names_of_jepa_wms_are_understood(tmp_path: Path) -> None:
    """A copy of the release under their names: proprio_encoder, and no camera encoder."""
    weights = predictor_weights("vjepa2_ac_vitg", has_extrinsics=False)
    theirs = {key.replace("state_encoder", "proprio_encoder"): x for key, x in weights.items()}
    path = write(tmp_path / "ac.pt", theirs, encoder=False)
    predictor = load_predictor("vjepa2_ac_vitg", path, dtype="fp32")
    assert torch.equal(predictor.state_encoder.weight, weights["state_encoder.weight"])
    assert predictor.extrinsics_encoder is None


@pytest.mark.parametrize("asked", NAMES)
def test_the_other_layout_is_never_loaded_silently(asked: str, tmp_path: Path) -> None:
    given = next(name for name in NAMES if name != asked)
    path = write(tmp_path / "ac.pt", predictor_weights(given))
    with pytest.raises(CheckpointError, match=f"state token, {asked} has .* load it as {given}"):
        load_world_model(asked, path)


@pytest.mark.parametrize(
    ("name", "net"), [("vjepa2_ac_vitg", "target_encoder"), ("vjepa2_ac_droid", "encoder")]
)
def test_the_encoder_may_come_from_a_file_of_its_own(name: str, net: str, tmp_path: Path) -> None:
    """From the network of it that the predictor was trained on: average or student."""
    path = write(tmp_path / "ac.pt", predictor_weights(name), encoder=False)
    encoder = published_files.write(tmp_path / "vitg.pt", "tiny2")
    world = load_world_model(name, path, encoder_checkpoint=encoder, dtype="fp32")
    assert world.encoder.name == f"tiny2/{net}"
    with pytest.raises(CheckpointError, match="the encoder of .*push, compact, cannot be loaded"):
        load_world_model("push", encoder_checkpoint=encoder)


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    weights = predictor_weights("vjepa2_ac_vitg", depth=1)
    weights["predictor_norm.scale"] = weights.pop("predictor_norm.weight")
    weights["action_encoder.weight"] = torch.zeros(24, 6)
    path = write(tmp_path / "ac.pt", weights)
    with pytest.raises(CheckpointError, match="predictor") as error:
        load_predictor("vjepa2_ac_vitg", path)
    for fault in (
        "missing predictor_blocks.1.attn.qkv.weight",
        "missing predictor_norm.weight",
        "surplus predictor_norm.scale",
        "action_encoder.weight: wanted (24, 7), got (24, 6)",
    ):
        assert fault in str(error.value)


def test_files_without_such_a_predictor_are_told_so(tmp_path: Path) -> None:
    mask_predictor = {"predictor_embed.weight": torch.zeros(8, 24)}
    path = write(tmp_path / "vitg.pt", mask_predictor)
    with pytest.raises(CheckpointError, match=r"takes no actions.*vjepa2-ac-vitg\.pt"):
        load_predictor("vjepa2_ac_vitg", path)
    torch.save({"encoder": published_files.encoder_weights("tiny2")}, path)
    with pytest.raises(CheckpointError, match="has no predictor.* it holds encoder"):
        load_predictor("vjepa2_ac_vitg", path)


def test_a_missing_file_says_where_to_put_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VJEPA_WM_HOME", str(tmp_path))
    url = (tmp_path / "nowhere.pt").as_uri()
    small = dataclasses.replace(PREDICTORS["vjepa2_ac_vitg"], url=url)
    monkeypatch.setitem(PREDICTORS, "vjepa2_ac_vitg", small)
    with pytest.raises(CheckpointError, match=r"vjepa2-ac-vitg.pt \(about 11.8 GB\)") as error:
        load_world_model("vjepa2_ac_vitg")
    assert str(tmp_path / "vjepa2-ac-vitg.pt") in str(error.value)


def test_shipped_predictors_load_by_name() -> None:
    predictor = load_predictor("reacher", dtype="fp32")
    wanted = load_world_model("reacher", dtype="fp32").predictor.state_dict()
    assert all(torch.equal(predictor.state_dict()[key], value) for key, value in wanted.items())
    with pytest.raises(Exception, match="Did you mean 'vjepa2_ac_vitg'"):
        load_predictor("vjepa2_ac_vit_g")


def test_pictures_are_cut_as_in_training() -> None:
    """1280 x 720 is cut to its middle 972 columns; square and narrow pictures are not cut."""
    transform = WidePicture()
    wide = tiny.pixels(72, 128).permute(2, 0, 1)[None].repeat_interleave(10, 2)
    wide = wide.repeat_interleave(10, 3)
    pressed = PixelTransform(squash=True)
    assert torch.equal(transform(wide, 64), pressed(wide[..., 154:1126], 64))
    narrow = tiny.pixels(48, 64).permute(2, 0, 1)[None]
    assert torch.equal(transform(narrow, 32), pressed(narrow, 32))
    square = tiny.pixels(32, 32).permute(2, 0, 1)[None]
    assert torch.equal(transform(square, 32), PixelTransform()(square, 32))
    assert transform.record() != PixelTransform().record()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vjepa2_ac_vitg"])
def test_the_full_size_plans_one_action(name: str, tmp_path: Path, monkeypatch) -> None:
    """305 million parameters on latents of a ViT-L, from a file in Meta's format; needs 6 GB.

    The released weights use a ViT-g; its width is all that changes the predictor.
    """
    monkeypatch.undo()
    vitl = ENCODERS["vjepa2_vitl_256"]
    published = PREDICTORS[name]
    full = dataclasses.replace(
        published,
        encoder="vjepa2_vitl_256",
        predictor={**published.predictor, "latent_dim": vitl.vit["embed_dim"]},
    )
    monkeypatch.setitem(PREDICTORS, name, full)
    with torch.device("meta"):
        nets = {
            "encoder": VideoViT(**vitl.vit).state_dict(),
            "predictor": TokenPredictor(**full.predictor, has_extrinsics=True).state_dict(),
        }
    content = {
        net: {f"module.{key}": small_noise(x) for key, x in shapes.items()}
        for net, shapes in nets.items()
    }
    torch.save({**content, "epoch": 315}, tmp_path / "ac.pt")
    del content
    world = load_world_model(name, tmp_path / "ac.pt")
    (tmp_path / "ac.pt").unlink()  # 2.4 GB
    goal, frame = tiny.pixels(2, 256, 256).numpy()
    action = plan_once(world, {"pixels": frame, "proprio": POSE}, goal, num_samples=4)
    assert action.shape == (7,) and np.isfinite(action).all()


def small_noise(like: Tensor) -> Tensor:
    """Draw a tensor of this shape, as weights begin."""
    return torch.empty(like.shape).normal_(std=0.02)
