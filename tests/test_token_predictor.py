"""V-JEPA 2-AC's predictor: the published outputs, cached and not, and what may see what."""

import pytest
import torch
from torch import Tensor

from tests import golden_files, tiny
from vjepa_wm.encoders.frozen import FrozenEncoder, layer_norm
from vjepa_wm.nn.blocks import attend
from vjepa_wm.poses import PoseIntegrator
from vjepa_wm.token_predictor import TokenPredictor, attend_frames
from vjepa_wm.world_model import ActionSpec, Imagination, WorldModel

TOLERANCE = 1e-4
GOLDEN = golden_files.load("vjepa2_ac_predictor")
LATENTS = GOLDEN.inputs["latents"].unflatten(1, (3, 9))
FRAMES = 5


def golden_predictor() -> TokenPredictor:
    predictor = TokenPredictor(
        latent_dim=GOLDEN.config["embed_dim"],
        grid=(3, 3),
        action_dim=GOLDEN.config["action_embed_dim"],
        proprio_dim=GOLDEN.config["action_embed_dim"],
        width=GOLDEN.config["predictor_embed_dim"],
        depth=GOLDEN.config["depth"],
        num_heads=GOLDEN.config["num_heads"],
        max_frames=4,
        has_extrinsics=True,
    )
    predictor.load_state_dict(GOLDEN.state_dict, strict=True)
    return predictor.eval()


def small_predictor(*, proprio_dim: int | None = 3) -> TokenPredictor:
    predictor = TokenPredictor(
        latent_dim=12,
        grid=(2, 3),
        action_dim=2,
        proprio_dim=proprio_dim,
        width=24,
        depth=2,
        num_heads=2,
        max_frames=FRAMES,
    )
    return tiny.randomise(predictor).eval()


def small_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return latents (2, 5, 6, 12), actions (2, 5, 2), states (2, 5, 3)."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, FRAMES, 6, 12), (2, FRAMES, 2), (2, FRAMES, 3))
    return tuple(torch.randn(*shape, generator=generator) for shape in shapes)


@torch.no_grad()
@pytest.mark.parametrize(("name", "frames"), [("tokens", 3), ("first_frame_only", 1)])
def test_agrees_with_the_published_code(name: str, frames: int) -> None:
    """Before the layer norm that every use of its outputs begins with, and after it."""
    predictor = golden_predictor()
    projected = []
    predictor.predictor_proj.register_forward_hook(lambda *call: projected.append(call[-1]))
    inputs = (LATENTS, GOLDEN.inputs["actions"], GOLDEN.inputs["states"])
    predicted = predictor(*(x[:, :frames] for x in inputs))
    wanted = GOLDEN.outputs[name].unflatten(1, (frames, 9))
    assert (projected[0] - wanted).abs().max() <= TOLERANCE
    assert (predicted - layer_norm(wanted)).abs().max() <= TOLERANCE


def golden_rollout() -> tuple[Tensor, Tensor, Tensor]:
    """Return the first frame (2, 1, 9, 128), its state (2, 1, 7), three actions (2, 3, 7)."""
    first = layer_norm(LATENTS[:, :1])
    return first, GOLDEN.inputs["states"][:, :1], GOLDEN.inputs["actions"] * 0.05


@torch.no_grad()
def test_uncached_rollout_agrees_with_the_published_code() -> None:
    predictor, integrate = golden_predictor(), PoseIntegrator()
    frames, poses, actions = golden_rollout()
    for t in range(3):
        predicted = predictor(frames, actions[:, : t + 1], poses)
        frames = torch.cat([frames, predicted[:, -1:]], dim=1)
        poses = torch.cat([poses, integrate(poses[:, -1:], actions[:, t : t + 1])], dim=1)
    assert (frames[:, 1:] - GOLDEN.outputs["rollout_tokens"]).abs().max() <= TOLERANCE
    assert (poses - GOLDEN.outputs["rollout_poses"]).abs().max() <= TOLERANCE


def test_cached_rollout_agrees_with_the_published_code() -> None:
    """Through the world model, two candidates per problem of which the second is the golden one."""
    encoder = FrozenEncoder(tiny.vit(), name="tiny", digest="0", image_size=16, pool=1)
    spec = ActionSpec(low=(-1.0,) * 7, high=(1.0,) * 7, frame_skip=1)
    world = WorldModel(
        encoder, golden_predictor(), action_spec=spec, integrate=PoseIntegrator(), memory_mb=64
    )
    frames, poses, actions = golden_rollout()
    candidates = torch.stack([actions.flip(1), actions], dim=1)
    # The golden states are normal draws: the gripper of one is outside what a user may pass
    imagined = Imagination(world, frames, actions[:, :0], poses).rollout(candidates)
    assert (imagined[:, 1] - GOLDEN.outputs["rollout_tokens"]).abs().max() <= TOLERANCE
    assert (imagined[:, 0] - imagined[:, 1]).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("frame", range(FRAMES))
def test_only_later_predictions_hear_of_a_frame(frame: int) -> None:
    """Whether its latents, its action or its state changed: all predictions from there on do."""
    predictor, inputs = small_predictor(), small_batch()
    before = predictor(*inputs)
    for changed in range(3):
        others = [x.clone() for x in inputs]
        others[changed][:, frame] += torch.randn(others[changed].shape[-1:])
        change = (predictor(*others) - before).abs().amax(dim=(0, 2, 3))
        assert change.gt(1e-4).nonzero().flatten().tolist() == list(range(frame, FRAMES))


@torch.no_grad()
@pytest.mark.parametrize("proprio_dim", [3, None])
@pytest.mark.parametrize("past", [0, 2])
def test_cached_steps_are_the_parallel_pass(past: int, proprio_dim: int | None) -> None:
    """With a state token and without."""
    predictor = small_predictor(proprio_dim=proprio_dim)
    latents, actions, states = small_batch()
    states = None if proprio_dim is None else states
    wanted = predictor(latents, actions, states)[:, past:]
    before = [None if x is None else x[:, :past] for x in (latents, actions, states)]
    caches = tiny.caches_after(predictor, *before, max_frames=FRAMES)
    conditions = predictor.condition(actions, states)
    steps = range(past, FRAMES)
    stepped = [predictor.step(latents[:, t], conditions[:, t], caches) for t in steps]
    torch.testing.assert_close(torch.stack(stepped, 1), wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_bfloat16_is_close() -> None:
    exact = small_predictor()(*small_batch())
    rough = small_predictor().bfloat16()(*small_batch())
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().mean()) < 0.03  # of values with standard deviation 1


@torch.no_grad()
def test_poses_are_not_rounded_to_bfloat16() -> None:
    """Half a degree near pi is less than bfloat16 can tell apart, yet counts."""
    predictor = small_predictor().bfloat16()
    _, actions, states = small_batch()
    turned = states.clone()
    states[..., 0], turned[..., 0] = 3.125, 3.125 + 0.007
    assert torch.equal(states.bfloat16(), turned.bfloat16())
    before = predictor.condition(actions, states)
    after = predictor.condition(actions, turned)
    assert not torch.equal(before[:, :, 1], after[:, :, 1])


def test_attention_frame_by_frame_is_attention_under_a_mask() -> None:
    """Also where the keys of two earlier frames are already there."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 20, 8, generator=generator) for _ in range(3))
    frame = torch.arange(20) // 4
    mask = frame.unsqueeze(1) >= frame.unsqueeze(0)
    for past in (0, 8):
        part = query[:, :, past:]
        wanted = attend(part, key, value, mask[past:])
        got = attend_frames(part, key, value, tokens_per_frame=4)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_proprio_missing_surplus_or_of_another_width_is_named() -> None:
    latents, actions, states = small_batch()
    with pytest.raises(ValueError, match=r"wants proprio \(B, T, 3\).* got none"):
        small_predictor()(latents, actions)
    with pytest.raises(ValueError, match=r"wants proprio \(B, T, 3\).* got \(2, 5, 2\)"):
        small_predictor()(latents, actions, states[..., :2])
    with pytest.raises(ValueError, match="takes no proprio"):
        small_predictor(proprio_dim=None)(latents, actions, states)
    with pytest.raises(ValueError, match="takes no proprio"):
        tiny.predictor()(latents, actions, states)


def test_every_used_part_learns() -> None:
    """All but the camera encoder, which is there for the published weights alone."""
    predictor = golden_predictor()
    predictor(LATENTS, GOLDEN.inputs["actions"], GOLDEN.inputs["states"]).square().sum().backward()
    silent = {name.split(".")[0] for name, p in predictor.named_parameters() if p.grad is None}
    assert silent == {"extrinsics_encoder"}


@pytest.mark.slow
@torch.no_grad()
def test_compiled_blocks_predict_the_same() -> None:
    """All frames at once."""
    predictor = small_predictor()
    batch = small_batch()
    wanted = predictor(*batch)
    predictor.compile_layers()
    torch.testing.assert_close(predictor(*batch), wanted, atol=1e-5, rtol=1e-5)
