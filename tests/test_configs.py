"""Every option of every group builds what it is for, and every verb takes it."""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gymnasium
import hydra
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from planners import Planner
from vjepa_wm.behaviour_cloning import GoalPolicy
from vjepa_wm.cli import check_overrides
from vjepa_wm.costs import GoalCost
from vjepa_wm.decoder import Decoder
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.metric import TemporalMetric
from vjepa_wm.predictor import ActionPredictor
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.proprio import LearnedIntegrator
from vjepa_wm.training.trainer import Trainer

CONFIGS = Path(__file__).parents[1] / "configs"
OPTIONS = sorted(f"{path.parent.name}/{path.stem}" for path in CONFIGS.glob("*/*.yaml"))
VERBS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "hydra_defaults")


def build_env(cfg: DictConfig) -> None:
    env = gymnasium.make(cfg.id, image_size=cfg.image_size, disable_env_checker=True)
    obs, info = env.reset(seed=0)
    if env.action_space.shape != (0,):  # else it is watched
        assert obs["pixels"].shape == info["goal"]["pixels"].shape
    assert obs["pixels"].shape == (cfg.image_size, cfg.image_size, 3)
    assert cfg.frame_skip >= 1
    env.close()


def build_corpus(cfg: DictConfig) -> None:
    if cfg.id is None:
        return
    options = OmegaConf.to_container(cfg)
    options = {name: value for name, value in options.items() if name not in ("name", "id")}
    env = gymnasium.make(cfg.id, **options, disable_env_checker=True)
    assert env.unwrapped.num_frames == cfg.num_frames
    env.close()


def build_vit(cfg: DictConfig) -> None:
    vit = VideoViT(**cfg)
    side = 2 * cfg.patch_size
    video = torch.zeros(1, 3, cfg.tubelet_size, side, side)
    assert vit(video).shape == (1, 4, cfg.embed_dim)


def build_predictor(cfg: DictConfig) -> None:
    predictor = ActionPredictor(latent_dim=8, grid=(2, 2), action_dim=2, **cfg)
    latents = torch.zeros(1, cfg.max_frames, 4, 8)
    assert predictor(latents, torch.zeros(1, cfg.max_frames, 2)).shape == latents.shape


def build_pixel_decoder(cfg: DictConfig) -> None:
    decoder = Decoder(latent_dim=8, num_patches=4, image_size=8, **cfg)
    assert decoder.decode(torch.zeros(3, 4, 8)).shape == (3, 8, 8, 3)


def build_mask_predictor(cfg: DictConfig) -> None:
    MaskPredictor(embed_dim=8, **cfg)


def build_integrator(cfg: DictConfig) -> None:
    LearnedIntegrator(mean=[0.0], std=[1.0], action_dim=2, **cfg)


def metric_of(cfg: DictConfig) -> TemporalMetric:
    return TemporalMetric(latent_dim=8, num_patches=4, **cfg)


def build_metric(cfg: DictConfig) -> None:
    built = metric_of(cfg)
    assert built(torch.zeros(3, 4, 8), torch.ones(4, 8)).shape == (3,)


def build_goal_policy(cfg: DictConfig) -> None:
    policy = GoalPolicy(latent_dim=8, num_patches=4, low=[-1.0], high=[1.0], **cfg)
    assert policy(torch.zeros(3, 4, 8), torch.ones(3, 4, 8)).shape == (3, 1)


def build_cost(cfg: DictConfig) -> None:
    cost = instantiate(cfg, metric=metric_of(OmegaConf.load(CONFIGS / "metric/temporal.yaml")))
    assert isinstance(cost, GoalCost)
    latents = torch.randn(2, 3, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    costs = cost(latents, latents[:, 0, -1])
    assert costs.shape == (2, 3) and costs.isfinite().all()


def build_planner(cfg: DictConfig) -> None:
    if "defaults" in cfg:  # what an environment is planned with is another option
        cfg = OmegaConf.load(CONFIGS / "planner" / f"{cfg.defaults[0]}.yaml")
    planner = instantiate(cfg)
    assert isinstance(planner, Planner)
    width = len(cfg.low) if "low" in cfg else 2
    plan = planner.plan(
        lambda actions: (actions - 0.2).square().sum((-1, -2)),
        low=torch.full((width,), -1.0),
        high=torch.full((width,), 1.0),
        generator=torch.Generator().manual_seed(0),
    )
    assert plan.actions.shape == (1, planner.horizon, width)


def build_trainer(cfg: DictConfig) -> None:
    assert isinstance(instantiate(cfg), Trainer)
    assert cfg.steps is not None or cfg.minutes is not None, "it would never end"


def build_head(cfg: DictConfig) -> None:
    head = instantiate(cfg, width=8, num_outputs=3)
    assert head(torch.zeros(2, 5, 8)).shape == (2, 3)


def build_encoder(cfg: DictConfig) -> None:
    """Weights are shipped or the user's; here only the call is checked."""
    target = hydra.utils.get_method(cfg._target_)
    assert set(cfg) - {"_target_"} < set(target.__annotations__)


def build_objective(cfg: DictConfig) -> None:
    """From a tiny network to a loss, with a gradient for the encoder."""
    vit = VideoViT(patch_size=4, tubelet_size=2, embed_dim=12, depth=1, num_heads=1)
    sizes = {"embed_dim": 12, "predictor_embed_dim": 8, "depth": 1, "num_heads": 1}
    predictor = partial(MaskPredictor, num_mask_tokens=1, **sizes)
    objective = instantiate(cfg, _partial_=True, _convert_="all")(vit, predictor)
    masks = [(torch.tensor([[0, 1]]), torch.tensor([[2, 3]]))]
    loss, _ = objective.loss(torch.randn(1, 3, 2, 8, 8), masks, torch.zeros(1, dtype=int), 0.5)
    loss.backward()
    objective.update_target()
    assert objective.encoder.patch_embed.proj.weight.grad.abs().max() > 0


def build_masks(cfg: DictConfig) -> None:
    for is_image, grid in ((False, (2, 8, 8)), (True, (1, 8, 8))):
        drawn = instantiate(cfg).draw(
            np.random.default_rng(0), batch_size=2, grid=grid, is_image=is_image
        )
        assert all(context.numel() and target.numel() for context, target in drawn)


def build_recipe(cfg: DictConfig) -> None:
    """It sets only what there is: Hydra would add a misspelt key in silence."""
    with hydra.initialize_config_module("configs", version_base="1.3"):
        known = hydra.compose("pretrain")
    assert set(cfg) - {"defaults"} <= set(known)


BUILD: dict[str, Callable[[DictConfig], None]] = {
    "corpus": build_corpus,
    "cost": build_cost,
    "encoder": build_encoder,
    "env": build_env,
    "goal_policy": build_goal_policy,
    "head": build_head,
    "mask_predictor": build_mask_predictor,
    "integrator": build_integrator,
    "masks": build_masks,
    "metric": build_metric,
    "objective": build_objective,
    "pixel_decoder": build_pixel_decoder,
    "planner": build_planner,
    "predictor": build_predictor,
    "recipe": build_recipe,
    "trainer": build_trainer,
    "vit": build_vit,
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_builds(option: str) -> None:
    group = option.partition("/")[0]
    assert group in BUILD, f"say in {__file__} what an option of the group {group} is for"
    BUILD[group](OmegaConf.load(CONFIGS / f"{option}.yaml"))


@pytest.mark.parametrize("name", VERBS)
def test_every_config_is_a_verbs_and_resolves(name: str) -> None:
    """It has a program, refers to nothing that is not there, and leaves nothing to be filled in."""
    folder = "demos" if (CONFIGS.parent / "demos" / f"{name}.py").exists() else "vjepa_wm"
    assert callable(importlib.import_module(f"{folder}.{name}").main)
    with hydra.initialize_config_module("configs", version_base="1.3"):
        cfg = hydra.compose(name)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("name", VERBS)
def test_every_choice_of_every_verb_composes(name: str) -> None:
    """Also of groups that stand under another name, like trainer@metric_trainer."""
    defaults = OmegaConf.load(CONFIGS / f"{name}.yaml").defaults
    for choice in (next(iter(entry)) for entry in defaults if isinstance(entry, DictConfig)):
        for option in (CONFIGS / choice.partition("@")[0]).glob("*.yaml"):
            check_overrides(name, [f"{choice}={option.stem}"])


@pytest.mark.parametrize("env", sorted(path.stem for path in (CONFIGS / "env").glob("*.yaml")))
@pytest.mark.parametrize("name", ["evaluate", "diagnose", "benchmark", "reach_goal"])
def test_every_environment_has_its_planner_and_takes_another(name: str, env: str) -> None:
    with hydra.initialize_config_module("configs", version_base="1.3"):
        planned = hydra.compose(name, overrides=[f"env={env}"]).planner
        chosen = hydra.compose(name, overrides=[f"env={env}", "planner=mppi"]).planner
    wanted = "planners.CEM" if env == "push_t" else "planners.ICEM"
    assert (planned._target_, chosen._target_) == (wanted, "planners.MPPI")


@pytest.mark.parametrize(("name", "at_most"), [("compact", 3e6), ("compact_s", 22e6)])
def test_compact_encoders_are_compact(name: str, at_most: float) -> None:
    with torch.device("meta"):
        vit = VideoViT(**OmegaConf.load(CONFIGS / "vit" / f"{name}.yaml"))
    assert 0.8 * at_most < sum(weights.numel() for weights in vit.parameters()) <= at_most
