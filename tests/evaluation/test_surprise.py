"""Surprise on models whose predictions are known, and its figures against hand-made numbers."""

import numpy as np
import pytest
import torch

from tests import tiny
from vjepa_wm import load_world_model
from vjepa_wm.errors import DataError, SettingError, UnknownNameError
from vjepa_wm.evaluation.statistics import auroc
from vjepa_wm.evaluation.surprise import (
    Looks,
    TwinSurprise,
    copy_errors,
    curves_of,
    foreseen_errors,
    looks_of,
    peaks,
)
from vjepa_wm.evaluation.surprise_figures import event_figure, frame_lines, pair_lines, typical
from vjepa_wm.evaluation.twins import Stage, TwinClips


def test_auroc_counts_pairs_and_ties_half() -> None:
    """Of six pairs 3 > 1, 3 > 2, 2 > 1 are won, 2 = 2 is a tie, 1 = 1 one, 1 < 2 is lost."""
    assert auroc([3, 2, 1], [1, 2]) == pytest.approx((3 + 2 * 0.5) / 6)
    assert auroc([2, 3], [0, 1]) == 1.0 and auroc([0], [1]) == 0.0
    assert auroc([5, 5], [5, 5, 5]) == 0.5
    for bad in (([], [1.0]), ([1.0], [np.nan])):
        with pytest.raises(Exception, match="auroc: wanted numbers"):
            auroc(*bad)


def test_curves_reduce_tokens_and_peaks_are_apart() -> None:
    errors = torch.tensor([[[torch.nan, torch.nan], [1.0, 3.0], [0.0, 0.5]]])
    curves = curves_of({"copy": errors})["copy"]
    np.testing.assert_allclose(curves["largest"], [[np.nan, 3.0, 0.5]])
    np.testing.assert_allclose(curves["mean"], [[np.nan, 2.0, 0.25]])
    curve = np.array([np.nan, 1.0, 5.0, 4.0, 1.0, 1.0, 3.0, 2.0])
    assert peaks(curve, 2) == [2, 6]
    assert peaks(curve, 9)[:2] == [2, 6]


@pytest.mark.parametrize("ahead", [1, 3])
def test_copying_errs_by_what_changed(ahead: int) -> None:
    latents = torch.arange(5.0).reshape(1, 5, 1, 1).expand(2, 5, 3, 4)
    errors = copy_errors(latents, ahead=ahead)
    assert errors[:, :ahead].isnan().all()
    assert torch.equal(errors[:, ahead:], torch.full((2, 5 - ahead, 3), float(ahead)))


@pytest.fixture(scope="module")
def world_model(world_model_folder):
    return load_world_model(world_model_folder, dtype="fp32")


@pytest.mark.parametrize("looks", [Looks(6, 1), Looks(2, 1), Looks(3, 3)])
def test_frames_are_foreseen_from_those_before(world_model, looks: Looks) -> None:
    """Every error is that of a rollout from the context, and no later frame plays a part."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 9, 4, tiny.VIT["embed_dim"], generator=generator)
    actions = torch.rand(3, 8, 2, generator=generator)
    proprio = torch.zeros(3, 9, 2)
    errors = foreseen_errors(world_model, latents, actions, proprio, looks)
    assert errors[:, : looks.ahead].isnan().all() and errors[:, looks.ahead :].isfinite().all()
    for frame in (looks.ahead, 8):
        now = frame - looks.ahead
        first = max(0, now + 1 - looks.context_len)
        foreseen = world_model.rollout(
            latents[:, first : now + 1], actions[:, first:now], actions[:, None, now:frame]
        )[:, 0, -1]
        wanted = (foreseen - latents[:, frame]).abs().mean(-1)
        torch.testing.assert_close(errors[:, frame], wanted)
    changed = latents.clone()
    changed[:, 6:] += 1
    again = foreseen_errors(world_model, changed, actions, proprio, looks)
    assert torch.equal(again[:, looks.ahead : 6], errors[:, looks.ahead : 6])
    assert not torch.equal(again[:, 6], errors[:, 6])


def test_how_far_it_looks_fits_what_it_was_trained_on(world_model) -> None:
    assert looks_of(world_model, context_len=None, ahead=1) == (6, 1)
    assert looks_of(world_model, context_len=None, ahead=3) == (4, 3)
    assert looks_of(world_model, context_len=2, ahead=3) == (2, 3)
    with pytest.raises(SettingError, match="frames ahead: wanted 1 to 6, got 7"):
        looks_of(world_model, context_len=None, ahead=7)
    with pytest.raises(SettingError, match="context_len: wanted 1 to 6 or null, got 0"):
        looks_of(world_model, context_len=0, ahead=1)


def surprise(predictor, copy, *, covered: int = 0) -> TwinSurprise:
    """Surprise of twins with one token, of curves (2, B, T)."""
    curves = {"predictor": predictor, "copy": copy, "random_copy": copy}
    pairs, frames = predictor.shape[1:]
    clips = TwinClips(
        event="vanishes",
        says="gone",
        frame=2,
        covered=covered,
        episodes=tuple(range(10, 10 + pairs)),
        pixels=np.zeros((2, pairs, frames, 8, 8, 3), np.uint8),
        actions=np.zeros((pairs, frames - 1, 2), np.float32),
        proprio=np.zeros((2, pairs, frames, 2), np.float32),
    )
    both = {row: {"largest": curve, "mean": curve / 2} for row, curve in curves.items()}
    return TwinSurprise(clips, Looks(6, 1), both)


def test_clips_score_from_the_event_on() -> None:
    nan = np.nan
    predictor = np.array([[[nan, 9, 1, 2], [nan, 9, 3, 1]], [[nan, 9, 2, 4], [nan, 9, 2, 1]]])
    copy = np.ones((2, 2, 4))
    found = surprise(predictor, copy)
    np.testing.assert_array_equal(found.scores("predictor", "largest"), [[2, 3], [4, 2]])
    figure = event_figure(found, tokens="largest", seed=0)
    told = figure.rows["predictor"]["largest"]
    assert told.auroc == pytest.approx((1 + 1 + 0.5 + 0) / 4)  # 4 > 2, 4 > 3, 2 = 2, 2 < 3
    assert told.higher == 0.5
    assert figure.rows["copy"]["mean"].auroc == 0.5 and figure.rows["copy"]["mean"].higher == 0
    assert figure.gain == pytest.approx(0.125)
    names = [finding.name for finding in figure.findings()]
    assert names == ["AUROC", "impossible twin higher", "AUROC less copy's"]
    assert figure.findings()[0].is_bad and figure.title == "vanishes: gone (2 pairs)"
    behind = surprise(predictor, copy, covered=1)
    np.testing.assert_array_equal(behind.scores("predictor", "largest"), [[1, 3], [2, 2]])


def test_the_pair_that_is_shown_is_the_one_in_the_middle() -> None:
    predictor = np.zeros((2, 3, 3))
    predictor[1, :, 2] = [5.0, 0.0, 1.0]
    assert typical(surprise(predictor, predictor), "largest") == 2


def test_files_have_every_pair_and_every_frame() -> None:
    predictor = np.arange(16.0).reshape(2, 2, 4)
    predictor[:, :, 0] = np.nan
    found = surprise(predictor, predictor)
    pairs, frames = list(pair_lines(found)), list(frame_lines(found))
    assert [line["episode"] for line in pairs] == [10, 11]
    assert pairs[1]["predictor_largest_impossible"] == 15.0
    assert len(frames) == 2 * 2 * 4
    assert frames[0]["predictor_mean"] == "" and frames[0]["since_event"] == -2
    assert frames[-1]["twin"] == "impossible" and frames[-1]["predictor_mean"] == 7.5


def test_a_stage_draws_pairs_from_different_episodes() -> None:
    with Stage("envs:vjepa_wm/Reacher-v0", image_size=16, frame_skip=2) as stage:
        clips = stage.draw("vanishes", count=3, before=3, after=2, seed=1)
        assert clips.episodes == (0, 1, 2) and len(clips) == 3
        assert clips.pixels.shape == (2, 3, 5, 16, 16, 3) and clips.proprio.shape == (2, 3, 5, 4)
        assert np.array_equal(clips.pixels[0, :, :3], clips.pixels[1, :, :3])
        assert not np.array_equal(clips.pixels[0, 0], clips.pixels[0, 1])
        with pytest.raises(UnknownNameError, match="Did you mean 'vanishes'"):
            stage.check("vanish")
        with pytest.raises(DataError, match="frames before it"):
            stage.draw("vanishes", count=1, before=0, after=2, seed=0)


def test_environments_without_impossible_scenes_are_refused() -> None:
    with pytest.raises(DataError, match="no impossible versions of its scenes are known"):
        Stage("Pendulum-v1", image_size=16, frame_skip=1)
