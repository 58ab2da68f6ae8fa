"""The mask predictor's switches: levels, wider targets, dense predictions, images."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.tiny import randomise
from vjepa_wm.errors import SettingError
from vjepa_wm.pretraining.mask_predictor import MaskPredictor

SIZES = {
    "embed_dim": 8,
    "predictor_embed_dim": 12,
    "depth": 2,
    "num_heads": 2,
    "num_mask_tokens": 2,
}
GRID = (2, 2, 3)
CONTEXT_IDS = torch.tensor([[0, 3, 7, 11], [1, 2, 8, 10]])
TARGET_IDS = torch.tensor([[1, 2, 9], [0, 5, 6]])


def predictor(**switches: object) -> MaskPredictor:
    return randomise(MaskPredictor(**SIZES, **switches)).eval().requires_grad_(False)


def run(net: MaskPredictor, context: Tensor, *, is_image: bool = False) -> Tensor:
    return net(context, CONTEXT_IDS, TARGET_IDS, grid=GRID, mask_index=1, is_image=is_image)


def run_dense(net: MaskPredictor, context: Tensor, *, mask_index: int = 1) -> tuple[Tensor, Tensor]:
    return net.forward_dense(context, CONTEXT_IDS, TARGET_IDS, grid=GRID, mask_index=mask_index)


def context(levels: int) -> Tensor:
    return torch.randn(2, 4, 8 * levels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("switches", "levels", "width"),
    [({}, 1, 8), ({"levels": 4}, 4, 32), ({"output_dim": 20}, 1, 20)],
)
def test_widths_in_and_out(switches: dict[str, int], levels: int, width: int) -> None:
    assert run(predictor(**switches), context(levels)).shape == (2, 3, width)


def test_several_levels_come_in_through_a_hidden_layer() -> None:
    """Brought back to D, bent, and narrowed: the same as a single level of what is between."""
    several, single = predictor(levels=2, output_dim=8), predictor()
    single.load_state_dict(several.state_dict(), strict=False)
    single.predictor_embed.load_state_dict(several.predictor_embed[2].state_dict())
    between = F.gelu(several.predictor_embed[0](context(2)))
    torch.testing.assert_close(run(single, between), run(several, context(2)))


def test_dense_predictions_have_a_projection_of_their_own() -> None:
    """Targets as `forward` gives them; context tokens through the other projection."""
    net = predictor(dense=True)
    targets, seen = run_dense(net, context(1))
    torch.testing.assert_close(targets, run(net, context(1)))
    assert seen.shape == (2, 4, 8)
    net.predictor_proj_context.weight.zero_()
    net.predictor_proj_context.bias.fill_(2.0)
    after, constant = run_dense(net, context(1))
    assert torch.equal(constant, torch.full_like(seen, 2.0))
    torch.testing.assert_close(after, targets)


def test_context_predictions_follow_their_token() -> None:
    """Reordering the context reorders what is predicted of it, and nothing else."""
    net, order = predictor(dense=True), torch.tensor([2, 0, 3, 1])
    targets, seen = run_dense(net, context(1))
    moved_targets, moved = net.forward_dense(
        context(1)[:, order], CONTEXT_IDS[:, order], TARGET_IDS, grid=GRID, mask_index=1
    )
    torch.testing.assert_close(moved, seen[:, order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moved_targets, targets, atol=1e-5, rtol=1e-4)


def test_images_are_marked() -> None:
    """By a vector that every token gets; without `dense` there is none."""
    net, plain = predictor(dense=True), predictor()
    videos, images = (run(net, context(1), is_image=is_image) for is_image in (False, True))
    assert float((videos - images).abs().max()) > 1e-3
    net.video_mod_embed.copy_(net.img_mod_embed)
    torch.testing.assert_close(run(net, context(1)), images)
    assert torch.equal(run(plain, context(1)), run(plain, context(1), is_image=True))


def test_dense_output_without_the_projection_is_refused() -> None:
    with pytest.raises(SettingError, match="no projection of context tokens"):
        run_dense(predictor(), context(1))


def test_a_position_table_stands_in_for_rotations() -> None:
    """Targets differ by their places alone, also on a smaller grid, and rotations are off."""
    net = predictor(sincos_grid=GRID)
    assert "predictor_pos_embed" in net.state_dict()
    out = run(net, context(1))
    assert not torch.allclose(out[:, 0], out[:, 1], atol=1e-3)
    net.rope_style = "tiled"
    assert torch.equal(run(net, context(1)), out)
    net.predictor_pos_embed.zero_()
    flat = run(net, context(1))
    torch.testing.assert_close(flat[:, 0], flat[:, 1])


def test_a_shorter_clip_takes_the_beginning_of_the_table() -> None:
    net = predictor(sincos_grid=(4, 2, 3))
    whole = predictor(sincos_grid=GRID)
    torch.testing.assert_close(run(net, context(1)), run(whole, context(1)))
