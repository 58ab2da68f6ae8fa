"""Batches come in the order of seed and step, whoever decodes them."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import films, tiny
from vjepa_wm.data.held import Room
from vjepa_wm.data.video_scan import scan_videos
from vjepa_wm.errors import DataError, SettingError
from vjepa_wm.pretraining.clips import Augment, ClipSteps
from vjepa_wm.pretraining.loader import ClipLoader, ClipSampler, Plan
from vjepa_wm.pretraining.masks import MultiBlockMask
from vjepa_wm.pretraining.sources import Source, TrajectorySource, VideoSource

BATCH = 6
ALL = list(range(BATCH))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Trajectories and videos of squares."""
    root, steps = tmp_path_factory.mktemp("loader"), ClipSteps([0, 1])
    trajectories = tiny.moving_squares(root / "squares", episodes=4, length=6, size=16)
    for number in range(4):
        films.write_gif(root / "gifs" / f"{number}.gif", films.pictures(moves=True, seed=number))
    scan = scan_videos(root / "gifs", folder_fps=10.0)
    return [
        TrajectorySource(trajectories, num_frames=2, steps=steps),
        VideoSource(scan, num_frames=2, steps=steps, side=16, augment=Augment()),
    ]


def loader(sources: list[Source], *, workers: int, rows: list[int] = ALL) -> ClipLoader:
    """Make a loader whose batches have masks, drawn from the same generator."""
    sampler, mask = ClipSampler(sources), MultiBlockMask(num_blocks=2, spatial_scale=0.2)

    def plan(rng: np.random.Generator) -> Plan:
        source, clips = sampler.draw(rng, BATCH)
        return Plan(source, clips, [mask.sample(rng, batch_size=BATCH, grid=(1, 4, 4))])

    return ClipLoader(sources, plan, rows=rows, workers=workers)


def batches(made: ClipLoader, rng: np.random.Generator, count: int, rows: list[int] = ALL) -> list:
    """Return pixels, masks and the state of the generator after each batch."""
    found = []
    for _ in range(count):
        batch = made.next(rng)
        found.append((made.read(batch, rows), batch.plan.masks, rng.bit_generator.state))
    return found


def assert_same(found: list, wanted: list) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1][0][0], other[1][0][0])
        assert one[2] == other[2]


def test_workers_change_nothing_and_end(sources) -> None:
    """Also after a generator was set back, as resuming does, and for a part of the rows."""
    with loader(sources, workers=0) as made:
        wanted = batches(made, np.random.default_rng(3), 5)
    with loader(sources, workers=2) as made:
        assert_same(batches(made, np.random.default_rng(3), 5), wanted)
        rng = np.random.default_rng(0)
        rng.bit_generator.state = wanted[1][2]
        assert_same(batches(made, rng, 2), wanted[2:4])
    assert not multiprocessing.active_children()
    with loader(sources, workers=0, rows=[1, 4]) as made:
        found = batches(made, np.random.default_rng(3), 2, rows=[1, 4])
    assert torch.equal(found[1][0], wanted[1][0][[1, 4]])


def test_a_worker_that_dies_is_told(sources) -> None:
    with loader(sources, workers=1) as made:
        rng = np.random.default_rng(0)
        batches(made, rng, 1)
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(DataError, match="process that decodes videos died.*fewer workers"):
            batches(made, rng, 10)


def test_what_breaks_in_a_worker_is_known(tmp_path: Path) -> None:
    for number in range(5):
        films.write_gif(tmp_path / f"{number}.gif", films.pictures(moves=True, seed=number))
    scan = scan_videos(tmp_path, folder_fps=10.0)
    source = VideoSource(scan, num_frames=2, steps=ClipSteps([1]), side=8)
    broken = source.videos[0].name
    (tmp_path / broken).write_bytes(b"GIF89a")
    with loader([source], workers=0) as made:
        wanted = batches(made, np.random.default_rng(3), 3)
        assert list(made.faults[0]) == [broken]
    with loader([source], workers=1) as made:
        assert_same(batches(made, np.random.default_rng(3), 3), wanted)
        assert list(made.faults[0]) == [broken]


def test_a_number_of_workers_is_no_less_than_none(sources) -> None:
    with pytest.raises(SettingError, match="workers: wanted at least 0, got -1"):
        loader(sources, workers=-1)


def test_trajectories_need_no_workers(sources) -> None:
    with loader(sources[:1], workers=3) as made:
        batches(made, np.random.default_rng(0), 1)
        assert not multiprocessing.active_children()


def roomy(device: str, gigabytes: float = 1.0) -> Room:
    """Make a CPU stand in for a GPU with room."""
    room = Room(device)
    room.free = gigabytes * 1e9
    return room


def test_room_is_shared(sources) -> None:
    """What one takes the next one cannot; a CPU has none."""
    frames = sources[0].trajectories.pixels
    gigabytes = len(frames) * 16 * 16 * 3 / 1e9
    room = roomy("cpu", 1.5 * gigabytes)
    assert room.hold(frames) is not None
    assert room.hold(frames) is None
    assert Room("cpu").hold(frames) is None


def test_held_frames_are_the_frames_that_are_read(sources, monkeypatch) -> None:
    """A GPU holds trajectories; clips are the same in the same places, videos beside them."""
    with loader(sources, workers=0) as made:
        wanted = batches(made, np.random.default_rng(3), 4)
        parts = batches(made, np.random.default_rng(3), 2, rows=[4, 1])
    monkeypatch.setattr("vjepa_wm.pretraining.loader.Room", roomy)
    for workers in (0, 1):
        with loader(sources, workers=workers) as made:
            assert set(made._held) == {0}
            assert_same(batches(made, np.random.default_rng(3), 4), wanted)
    with loader(sources, workers=0) as made:
        assert_same(batches(made, np.random.default_rng(3), 2, rows=[4, 1]), parts)


def test_frames_that_are_cut_are_not_held(sources) -> None:
    trajectories = sources[0].trajectories
    cut = TrajectorySource(trajectories, num_frames=2, steps=ClipSteps([1]), augment=Augment())
    assert cut.hold(roomy("cpu")) is None
