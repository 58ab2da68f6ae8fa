"""Clips of trajectories and videos: what is asked for, from training parts only."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import films
from vjepa_wm.data.shards import Episode
from vjepa_wm.data.trajectories import (
    Trajectories,
    TrajectoryMeta,
    TrajectoryWriter,
    split_episodes,
)
from vjepa_wm.data.video_scan import scan_videos
from vjepa_wm.errors import DataError, SettingError
from vjepa_wm.pretraining.clips import Augment, ClipSteps
from vjepa_wm.pretraining.loader import ClipSampler
from vjepa_wm.pretraining.sources import TrajectorySource, VideoSource


def labelled(folder: Path, label: int, lengths: list[int]) -> Trajectories:
    """Write frames whose three channels say set, episode and time."""
    meta = TrajectoryMeta(
        env_id="labels", image_size=(4, 4), fps=1.0, action_low=(-1.0,), action_high=(1.0,)
    )
    with TrajectoryWriter(folder, meta) as writer:
        for number, length in enumerate(lengths):
            pixels = np.zeros((length, 4, 4, 3), np.uint8)
            pixels[..., 0], pixels[..., 1] = label, number
            pixels[..., 2] = np.arange(length)[:, None, None]
            writer.add(Episode(pixels, np.zeros((length - 1, 1), np.float32)))
    return Trajectories.open(folder)


def shaded(root: Path, lengths: list[int]) -> Path:
    """Write folders of pictures whose channels say video and time, ten a second."""
    for number, length in enumerate(lengths):
        frames = [Image.new("RGB", (6, 4), (number, 10 * t, 0)) for t in range(length)]
        films.write_folder(root / f"{number:02d}", frames)
    return root


def videos(root: Path, steps: ClipSteps, **changed: object) -> VideoSource:
    scan = scan_videos(root, folder_fps=10.0)
    return VideoSource(scan, **{"num_frames": 3, "steps": steps, "side": 4, **changed})


def read(source: object, rng: np.random.Generator, count: int) -> np.ndarray:
    return np.stack([source.read(clip)[0] for clip in source.draw(rng, count)])


@pytest.fixture
def sets(tmp_path: Path) -> list[Trajectories]:
    lengths = [[12 + number % 3 for number in range(30)], [9] * 5]
    return [labelled(tmp_path / str(i), i, rows) for i, rows in enumerate(lengths)]


def test_clips_of_trajectories_are_what_they_are_said_to_be(sets) -> None:
    """Evenly spaced, of one training episode, at every stride; the batches are shared alike."""
    steps = ClipSteps([0, 1, 2, 4])
    sources = [TrajectorySource(s, num_frames=3, steps=steps) for s in sets]
    sampler = ClipSampler(sources)
    rng = np.random.default_rng(0)
    strides, episodes = set(), (set(), set())
    for _ in range(60):
        part, clips = sampler.draw(rng, 7)
        assert part.tolist() == [0, 0, 0, 0, 1, 1, 1]
        for clip, index in zip(clips, part.tolist(), strict=True):
            pixels, faults = sources[index].read(clip)
            assert pixels.shape == (3, 4, 4, 3) and not faults
            assert (pixels[..., 0] == index).all() and len(np.unique(pixels[..., 1])) == 1
            episodes[index].add(int(pixels[0, 0, 0, 1]))
            (stride,) = set(np.diff(pixels[:, 0, 0, 2].astype(int)).tolist())
            strides.add(stride)
    assert strides == {0, 1, 2, 4}
    for found, trajectories in zip(episodes, sets, strict=True):
        assert found == set(trajectories.split()[0].tolist())


def test_batches_are_drawn_as_one_set_after_the_other(sets) -> None:
    """The order of draws that earlier versions trained with, which a resumed run goes on with."""
    strides, sizes = [0, 1], [4, 3]
    sources = [TrajectorySource(s, num_frames=3, steps=ClipSteps(strides)) for s in sets]
    sampler, rng, other = ClipSampler(sources), np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(10):
        part, clips = sampler.draw(rng, 7)
        found = [sources[i].read(clip)[0] for i, clip in zip(part, clips, strict=True)]
        wanted = []
        for trajectories, size in zip(sets, sizes, strict=True):
            train = trajectories.split()[0]
            windows = [trajectories.windows(n, episodes=train) for n in (1, 3)]
            pixels = windows[other.integers(2)].sample(other, size).pixels
            wanted += list(np.broadcast_to(pixels, (size, 3, 4, 4, 3)))
        assert np.array_equal(np.stack(found), np.stack(wanted))
        assert rng.bit_generator.state == other.bit_generator.state


def test_frames_to_validate_on_are_held_out_and_cut_to_the_shortest(sets, tmp_path: Path) -> None:
    steps = ClipSteps([1])
    held_out = sets[0].split()[1][:2]
    frames = TrajectorySource(sets[0], num_frames=2, steps=steps).validation_frames(2)
    length = min(12 + int(number) % 3 for number in held_out)
    assert frames.shape == (len(held_out), length, 4, 4, 3)
    assert frames[:, 0, 0, 0, 1].tolist() == held_out.tolist()
    assert frames[0, :, 0, 0, 2].tolist() == list(range(length))
    single = TrajectorySource(labelled(tmp_path / "one", 0, [5]), num_frames=2, steps=steps)
    with pytest.raises(DataError, match="holds out no episode of its 1"):
        single.validation_frames(2)


def test_pieces_to_validate_on_are_long_enough_where_there_are_such(tmp_path: Path) -> None:
    """One of two frames would cut all others to these, which tell nothing of time."""
    steps, lengths = ClipSteps([1]), np.full(40, 9)
    held_out = split_episodes(40)[1]
    lengths[held_out[0]] = 2
    trajectories = labelled(tmp_path / "labelled", 0, lengths.tolist())
    root = shaded(tmp_path / "shaded", lengths.tolist())
    frames = TrajectorySource(trajectories, num_frames=2, steps=steps).validation_frames(2)
    assert frames.shape[1] == 9 and frames[:, 0, 0, 0, 1].tolist() == held_out[1:3].tolist()
    source = videos(root, steps, num_frames=2)
    for count in (2, 40):
        frames = source.validation_frames(count)
        wanted = held_out[1 : 1 + count].tolist()
        assert frames.shape[1] == 9 and frames[:, 0, 0, 0, 0].tolist() == wanted
    short = labelled(tmp_path / "short", 0, [2] * 5)
    assert TrajectorySource(short, num_frames=2, steps=steps).validation_frames(2).shape[1] == 2
    source = videos(shaded(tmp_path / "brief", [2] * 5), steps, num_frames=2)
    assert source.validation_frames(2).shape[1] == 2


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [(ClipSteps([0, 2]), {0, 2}), (ClipSteps([9], [0.3]), {3}), (ClipSteps([9], [0.0]), {0})],
)
def test_clips_of_videos_are_what_they_are_said_to_be(
    tmp_path: Path, steps: ClipSteps, wanted: set[int]
) -> None:
    source = videos(shaded(tmp_path, [9] * 12), steps)
    rng, found, numbers = np.random.default_rng(0), set(), set()
    for _ in range(30):
        for clip in read(source, rng, 4):
            assert clip.shape == (3, 4, 4, 3)
            numbers |= set(np.unique(clip[..., 0]).tolist())
            assert len(np.unique(clip[..., 0])) == 1
            found |= set((np.diff(clip[:, 0, 0, 1].astype(int)) // 10).tolist())
    assert found == wanted
    held_out = {int(video.name) for video in source.held_out}
    assert held_out and numbers == set(range(12)) - held_out
    frames = source.validation_frames(4)
    assert set(frames[..., 0].unique().tolist()) == held_out
    assert frames.shape[1] >= 2 and (frames[:, 1:, 0, 0, 1] > frames[:, :-1, 0, 0, 1]).all()


def test_short_videos_are_skipped_with_their_reason(tmp_path: Path) -> None:
    root = shaded(tmp_path, [9, 4, 9, 5])
    source = videos(root, ClipSteps([1, 2]))
    assert source.skipped == {"01": "too short: 4 pictures, wanted 5"}
    with pytest.raises(DataError, match="at least two videos .* got 0. 4 skipped: 00 .too short"):
        videos(root, ClipSteps([20]))


def test_a_video_that_breaks_is_replaced_the_same_way_every_time(tmp_path: Path) -> None:
    root = shaded(tmp_path, [6] * 10)
    source = videos(root, ClipSteps([1]))
    broken = source.videos[0]
    clips = [clip for clip in source.draw(np.random.default_rng(0), 60) if clip.item == 0]
    for picture in (root / broken.name).iterdir():
        picture.write_bytes(b"broken")
    (first, faults), (second, _) = source.read(clips[0]), source.read(clips[0])
    assert list(faults) == [broken.name]
    assert np.array_equal(first, second)
    assert first[0, 0, 0, 0] != int(broken.name)
    for video in source.videos:
        for picture in (root / video.name).iterdir():
            picture.unlink()
    with pytest.raises(DataError, match="10 videos in a row could not be read"):
        source.read(clips[0])


def test_cuts_are_the_same_in_all_frames_of_a_clip(tmp_path: Path) -> None:
    """Of a resting picture every frame stays alike; clips differ, and mirroring is seen."""
    ramp = np.zeros((8, 16, 3), np.uint8)
    ramp[..., 0] = np.arange(16) * 10
    for name in "ab":
        films.write_folder(tmp_path / name, [Image.fromarray(ramp)] * 4)
    source = videos(tmp_path, ClipSteps([1]), augment=Augment(area=(0.2, 0.6)), side=8)
    clips = read(source, np.random.default_rng(0), 40).astype(int)
    assert (clips == clips[:, :1]).all()
    rises = clips[:, 0, 4, -1, 0] > clips[:, 0, 4, 0, 0]
    assert 10 < rises.sum() < 30
    assert len({clip.tobytes() for clip in clips}) > 20
    plain = videos(tmp_path, ClipSteps([1]), side=8)
    assert len({clip.tobytes() for clip in read(plain, np.random.default_rng(0), 10)}) == 1


def test_trajectories_are_cut_where_asked(sets) -> None:
    options = {"num_frames": 3, "steps": ClipSteps([0])}
    augmented = TrajectorySource(sets[0], augment=Augment(), **options)
    pixels = read(augmented, np.random.default_rng(0), 5)
    assert pixels.shape == (5, 3, 4, 4, 3) and (pixels[..., 0] == 0).all()


def test_sources_are_weighted(sets) -> None:
    steps = ClipSteps([1])
    sources = [TrajectorySource(s, num_frames=3, steps=steps) for s in sets]
    sampler, rng = ClipSampler(sources, [1, 3]), np.random.default_rng(0)
    counts = np.zeros(2)
    for _ in range(200):
        part, clips = sampler.draw(rng, 6)
        assert len(clips) == 6
        counts += np.bincount(part, minlength=2)
    assert counts[1] / counts.sum() == pytest.approx(0.75, abs=0.03)
    for weights in ([1], [1, 2, 3], [1, 0]):
        with pytest.raises(SettingError, match="weights: wanted 2 numbers above 0, one for each"):
            ClipSampler(sources, weights)
