"""Multi-block masks: what is hidden, how much of it, and that something is always seen."""

import numpy as np
import pytest
import torch

from vjepa_wm.pretraining.masks import MultiBlockMask, MultiBlockMasks, TubeMasks

GRID = (2, 8, 8)
TOKENS = 2 * 8 * 8
KINDS = {
    "short": MultiBlockMask(num_blocks=8, spatial_scale=0.15),
    "long": MultiBlockMask(num_blocks=2, spatial_scale=0.7),
    "future": MultiBlockMask(num_blocks=1, spatial_scale=1.0, temporal_scale=0.5),
}


def draw(kind: MultiBlockMask, *, batch_size: int = 6, seed: int = 0) -> tuple:
    return kind.sample(np.random.default_rng(seed), batch_size=batch_size, grid=GRID)


@pytest.mark.parametrize("name", KINDS)
def test_context_and_target_are_disjoint_and_stack(name: str) -> None:
    """Sorted ids on the grid, none twice, of one size over the batch, never an empty context."""
    for seed in range(20):
        context, target = draw(KINDS[name], seed=seed)
        assert context.dtype == target.dtype == torch.int64
        assert context.shape[1] >= 1
        assert target.shape[1] >= 1
        for row in torch.cat([context, target], dim=1):
            assert len(row.unique()) == len(row)
            assert 0 <= int(row.min()) <= int(row.max()) < TOKENS
        assert torch.equal(context, context.sort(dim=1).values)
        assert torch.equal(target, target.sort(dim=1).values)


def test_one_sample_is_partitioned() -> None:
    """Nothing is cut off where there is nothing to stack with: every token is seen or predicted."""
    for kind in KINDS.values():
        context, target = draw(kind, batch_size=1)
        assert context.shape[1] + target.shape[1] == TOKENS


@pytest.mark.parametrize("scale", [0.15, 0.4, 0.7])
def test_a_block_has_its_share_of_the_area_and_shape(scale: float) -> None:
    """Through all frames; over draws the mean area is the scale, the aspect within its limits."""
    kind = MultiBlockMask(num_blocks=1, spatial_scale=scale)
    shares = []
    for seed in range(200):
        _, target = draw(kind, batch_size=1, seed=seed)
        mask = torch.zeros(TOKENS, dtype=torch.bool)
        mask[target[0]] = True
        first, second = mask.view(GRID)
        assert torch.equal(first, second)
        height, width = first.any(1).sum(), first.any(0).sum()
        assert first.sum() == height * width
        assert abs(height - width * 1.5) <= 1.5 or height < width * 1.5
        assert abs(height - width * 0.75) <= 1.5 or height > width * 0.75
        shares.append(float(mask.float().mean()))
    assert np.mean(shares) == pytest.approx(scale, rel=0.1)


def test_blocks_of_a_batch_have_one_size_but_their_own_places() -> None:
    """With a single block nothing is cut, so all targets are whole blocks of that size."""
    _, target = draw(MultiBlockMask(num_blocks=1, spatial_scale=0.2), batch_size=20)
    sizes = set()
    for row in target:
        mask = torch.zeros(TOKENS, dtype=torch.bool)
        mask[row] = True
        sizes.add((int(mask.view(GRID)[0].any(1).sum()), int(mask.view(GRID)[0].any(0).sum())))
    assert len(sizes) == 1
    assert len({tuple(row.tolist()) for row in target}) > 5


def test_half_of_the_clip() -> None:
    """A temporal scale of one half hides whole frames, either half."""
    context, target = draw(KINDS["future"], batch_size=20)
    halves = {(int(c[0]) // 64, int(t[0]) // 64) for c, t in zip(context, target, strict=True)}
    assert halves == {(0, 1), (1, 0)}
    assert context.shape[1] == target.shape[1] == 64


def test_the_same_generator_state_gives_the_same_masks() -> None:
    for first, second in zip(draw(KINDS["short"]), draw(KINDS["short"]), strict=True):
        assert torch.equal(first, second)


def test_a_grid_too_small_for_the_blocks_is_an_error() -> None:
    """Not an endless search for a context."""
    kind = MultiBlockMask(num_blocks=1, spatial_scale=1.0, temporal_scale=0.5)
    with pytest.raises(ValueError, match=r"cover the whole grid of \(1, 2, 2\)"):
        kind.sample(np.random.default_rng(0), batch_size=2, grid=(1, 2, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"spatial_scale": 0.0},
        {"spatial_scale": 1.2},
        {"spatial_scale": 0.5, "temporal_scale": 0.0},
        {"spatial_scale": 1.0},
    ],
)
def test_impossible_scales_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="scale"):
        MultiBlockMask(num_blocks=1, **arguments)


@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_tubes_hide_the_same_patches_in_all_frames(ratio: float) -> None:
    """Their share of every frame, other patches in each clip; what is left is the context."""
    ((context, target),) = TubeMasks(ratio=ratio).draw(
        np.random.default_rng(0), batch_size=6, grid=GRID
    )
    hidden = round(64 * ratio)
    assert target.shape == (6, 2 * hidden)
    for seen, masked in zip(context, target, strict=True):
        assert torch.equal(torch.cat([seen, masked]).sort().values, torch.arange(TOKENS))
        assert torch.equal(seen, seen.sort().values) and torch.equal(masked, masked.sort().values)
        assert torch.equal(masked[:hidden] + 64, masked[hidden:])
    assert len({tuple(row.tolist()) for row in target}) == 6


def test_tubes_leave_something_to_see_and_to_paint() -> None:
    for ratio in (0.01, 0.99):
        ((context, target),) = TubeMasks(ratio=ratio).draw(
            np.random.default_rng(0), batch_size=2, grid=(1, 2, 2), is_image=True
        )
        assert context.shape[1] >= 1 and target.shape[1] >= 1
    with pytest.raises(ValueError, match="cannot be masked"):
        TubeMasks(ratio=0.9).draw(np.random.default_rng(0), batch_size=2, grid=(4, 1, 1))
    with pytest.raises(ValueError, match="ratio"):
        TubeMasks(ratio=1.0)


def test_clips_and_stills_have_kinds_of_their_own() -> None:
    masks = MultiBlockMasks(
        video=[{"num_blocks": 8, "spatial_scale": 0.15}, {"num_blocks": 2, "spatial_scale": 0.7}],
        image=[{"num_blocks": 1, "spatial_scale": 0.15}],
    )
    drawn = masks.draw(np.random.default_rng(0), batch_size=6, grid=GRID)
    first = draw(KINDS["short"])
    assert len(drawn) == 2
    assert all(map(torch.equal, drawn[0], first))
    rng = np.random.default_rng(0)
    ((_, target),) = masks.draw(rng, batch_size=1, grid=(1, 8, 8), is_image=True)
    assert target.shape[1] < 16


def coverage(kind: MultiBlockMask) -> float:
    """Mean share of the tokens that is hidden, on the grid of 16 frames at 224 pixels."""
    grid = (8, 14, 14)
    counts = [
        kind.sample(np.random.default_rng(seed), batch_size=1, grid=grid)[1].shape[1]
        for seed in range(100)
    ]
    return float(np.mean(counts)) / (8 * 14 * 14)


def test_published_masks_hide_most_of_a_clip() -> None:
    """The long-range ones nearly all, the short-range ones about three quarters."""
    short = MultiBlockMask(num_blocks=8, spatial_scale=0.15)
    long = MultiBlockMask(num_blocks=2, spatial_scale=0.7)
    image = MultiBlockMask(num_blocks=10, spatial_scale=0.15)
    assert 0.6 < coverage(short) < 0.85
    assert coverage(short) < coverage(image) < coverage(long)
    assert 0.8 < coverage(long) < 0.97
