"""Crops, flips and stills: what the encoder is shown of a clip."""

import numpy as np
import pytest
import torch

from tests import tiny
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError
from vjepa_wm.pretraining.augment import CropFlip, stills

PUBLISHED = {"crop_scale": (0.3, 1.0), "crop_aspect": (0.75, 1.35), "flip": 0.5}


def ramp() -> torch.Tensor:
    """Return clips (8, 3, 32, 32, 3): red is the column, green the row, blue the frame."""
    clip = torch.zeros(3, 32, 32, 3)
    clip[..., 0] = torch.arange(32)
    clip[..., 1] = torch.arange(32).unsqueeze(1)
    clip[..., 2] = torch.arange(3).view(-1, 1, 1)
    return clip.to(torch.uint8).expand(8, -1, -1, -1, -1)


def test_without_crop_and_flip_pixels_stay() -> None:
    same = CropFlip(crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0)
    assert torch.equal(same(ramp(), np.random.default_rng(0)), ramp().float())


def test_a_flip_mirrors_columns_of_all_frames() -> None:
    mirror = CropFlip(crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=1.0)
    assert torch.equal(mirror(ramp(), np.random.default_rng(0)), ramp().float().flip(3))


def test_boxes_have_the_area_and_shape_asked_for() -> None:
    augment, rng = CropFlip(**PUBLISHED), np.random.default_rng(0)
    boxes = np.array([augment.box(rng, 64, 64) for _ in range(400)])
    top, left, rows, columns = boxes.T
    assert (top >= 0).all() and (top + rows <= 64).all()
    assert (left >= 0).all() and (left + columns <= 64).all()
    area, aspect = rows * columns / 64**2, columns / rows
    assert 0.28 < area.min() < 0.35 and area.max() <= 1
    assert 0.7 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.4
    assert len({tuple(box) for box in boxes}) > 300


def test_a_clip_is_cut_alike_in_all_frames_and_clips_differ() -> None:
    out = CropFlip(**PUBLISHED)(ramp(), np.random.default_rng(0))
    assert out.shape == ramp().shape and out.dtype == torch.float32
    assert out.min() >= 0 and out[..., :2].max() <= 31.001
    for clip in out:
        assert torch.equal(clip[0, ..., :2], clip[1, ..., :2])
        torch.testing.assert_close(clip[..., 2], torch.arange(3.0).view(-1, 1, 1).expand(3, 32, 32))
    assert len({tuple(clip[0, 0, 0].tolist()) for clip in out}) > 4
    steps = out[:, 0, 0, :, 0].diff(dim=1)  # a straight ramp, rising or mirrored
    assert ((steps > -1e-4).all(1) | (steps < 1e-4).all(1)).all()
    assert (steps.sum(1) < 0).any() and (steps.sum(1) > 0).any()


def test_the_same_generator_draws_the_same() -> None:
    first, second = (CropFlip(**PUBLISHED)(ramp(), np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_box_that_never_fits_is_the_whole_picture() -> None:
    augment = CropFlip(crop_scale=(1.0, 1.0), crop_aspect=(2.0, 3.0), flip=0.0)
    assert augment.box(np.random.default_rng(0), 32, 32) == (0, 0, 32, 32)


def test_stills_take_the_path_the_encoder_has() -> None:
    """One frame for an image path, else a tubelet of it."""
    video = torch.randn(2, 3, 4, 16, 16)
    repeated = stills(video, tiny.vit())
    assert torch.equal(repeated, video[:, :, :1].repeat(1, 1, 2, 1, 1))
    image = stills(video, VideoViT(**tiny.VIT, image_path=True))
    assert torch.equal(image, video[:, :, :1])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"crop_scale": (0.5, 0.3)}, "two ascending"),
        ({"crop_scale": (0.5, 1.5)}, "at most 1"),
        ({"flip": 2.0}, "flip"),
    ],
)
def test_impossible_settings_are_refused(changed: dict, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        CropFlip(**{**PUBLISHED, **changed})
