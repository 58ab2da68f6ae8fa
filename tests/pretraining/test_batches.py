"""What is decided on for a batch, and how its rows come to the objective."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError
from vjepa_wm.pretraining.batches import BatchLoss, own_rows, planner, stills, to_video
from vjepa_wm.pretraining.clips import ClipSteps
from vjepa_wm.pretraining.loader import ClipLoader, ClipSampler
from vjepa_wm.pretraining.masks import MultiBlockMasks
from vjepa_wm.pretraining.sources import TrajectorySource

SIZE, BATCH, FRAMES = 32, 4, 4
KIND = {"num_blocks": 2, "spatial_scale": 0.2}


class Watched(nn.Module):
    """An objective that keeps what it is given; its loss is the mean of the first frames."""

    def __init__(self, encoder: VideoViT) -> None:
        super().__init__()
        self.encoder = encoder
        self.given: list[tuple[Tensor, list, Tensor, float]] = []

    def loss(self, video: Tensor, masks: list, source: Tensor, share: float) -> tuple:
        self.given.append((video, masks, source, share))
        value = video[:, :, 0].mean()
        return value, {"brightness": value}


def parts(folder: Path, *, image_share: float, image_path: bool = False) -> tuple:
    """Make an objective and the loader of its batches."""
    trajectories = tiny.moving_squares(folder, episodes=4, length=7, size=SIZE)
    source = TrajectorySource(trajectories, num_frames=FRAMES, steps=ClipSteps([1]))
    objective = Watched(VideoViT(**tiny.VIT, image_path=image_path))
    plan = planner(
        ClipSampler([source]),
        MultiBlockMasks(video=[KIND], image=[KIND, KIND]),
        objective.encoder,
        batch_size=BATCH,
        num_frames=FRAMES,
        image_size=SIZE,
        image_share=image_share,
    )
    return objective, ClipLoader([source], plan, rows=list(range(BATCH)), workers=0)


@pytest.mark.parametrize(("image_path", "frames"), [(False, 2), (True, 1)])
def test_stills_and_clips_take_turns_with_masks_of_their_own(
    tmp_path: Path, image_path: bool, frames: int
) -> None:
    """A still is the first frame, as an image path takes it, or a tubelet of it."""
    objective, loader = parts(tmp_path, image_share=0.5, image_path=image_path)
    loss = BatchLoss(objective, loader, range(BATCH), pieces=1)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(12):
        loss(rng, 0.25)
    for video, masks, source, share in objective.given:
        is_still = len(masks) == 2
        assert video.shape == (BATCH, 3, frames if is_still else FRAMES, SIZE, SIZE)
        tokens = np.prod(objective.encoder.grid(video.shape))
        for context, target in masks:
            assert context.shape[0] == target.shape[0] == BATCH
            assert max(int(context.max()), int(target.max())) < tokens
        if is_still:
            assert (video == video[:, :, :1]).all()
        assert source.tolist() == [0] * BATCH and share == 0.25
        seen.add(is_still)
    assert seen == {False, True}


def test_pieces_are_the_rows_of_the_batch(tmp_path: Path) -> None:
    """Each clip once, with its masks; their parts add up to those of the whole."""
    objective, loader = parts(tmp_path, image_share=0.0)
    whole, _ = BatchLoss(objective, loader, range(BATCH), pieces=1)(np.random.default_rng(0), 0.0)
    in_two = BatchLoss(objective, loader, range(BATCH), pieces=2)
    pieces = list(in_two(np.random.default_rng(0), 0.0))
    assert len(pieces) == 2
    assert float(sum(loss for loss, _ in pieces)) == pytest.approx(float(whole), abs=1e-6)
    assert float(sum(p["brightness"] for _, p in pieces)) == pytest.approx(float(whole), abs=1e-6)
    (video, masks, *_), *halves = objective.given
    for index, (half, own, *_) in enumerate(halves):
        assert torch.equal(half, video[index::2])
        assert torch.equal(own[0][1], masks[0][1][index::2])


def test_no_stills_draw_nothing(tmp_path: Path) -> None:
    """So that the batches of trainings without them are those of before there were any."""
    _, loader = parts(tmp_path, image_share=0.0)
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    loader.next(rng)
    ClipSampler(loader.sources).draw(other, BATCH)
    masks = MultiBlockMasks(video=[KIND], image=[])
    masks.draw(other, batch_size=BATCH, grid=tiny.vit().grid(torch.Size([1, 3, 4, SIZE, SIZE])))
    assert rng.bit_generator.state == other.bit_generator.state


def test_impossible_shares_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"image_share: wanted a share in \[0, 1\], got 1.5"):
        parts(tmp_path, image_share=1.5)
    with pytest.raises(SettingError, match="trainer.batch_size 4 must be a multiple of 1"):
        own_rows(4, pieces=3)


def test_stills_take_the_path_the_encoder_has() -> None:
    """One frame for an image path, else a tubelet of it."""
    video = torch.randn(2, 3, 4, 16, 16)
    repeated = stills(video, tiny.vit())
    assert torch.equal(repeated, video[:, :, :1].repeat(1, 1, 2, 1, 1))
    image = stills(video, VideoViT(**tiny.VIT, image_path=True))
    assert torch.equal(image, video[:, :, :1])


def test_clips_become_normalised_video() -> None:
    """Channels first, frames in order."""
    clips = tiny.pixels(2, 3, 4, 5)
    video = to_video(clips)
    assert video.shape == (2, 3, 3, 4, 5)
    wanted = (clips[1, 2, 3, 4, 0] / 255 - 0.485) / 0.229
    torch.testing.assert_close(video[1, 0, 2, 3, 4], wanted)
