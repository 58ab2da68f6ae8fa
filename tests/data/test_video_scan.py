"""A folder is looked at once: what is in it is found, a restart looks at what is new only."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import films
from vjepa_wm.data import video_scan
from vjepa_wm.data.video_scan import scan_videos
from vjepa_wm.errors import DataError
from vjepa_wm.files import read_json, write_json


def scan(root: Path, cache: Path | None = None, **changed: object) -> video_scan.VideoScan:
    return scan_videos(root, cache=cache, **{"folder_fps": 10.0, "threads": 2, **changed})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Hold a GIF, a WebP a level deeper, a folder of pictures, and what is none."""
    root = tmp_path / "videos"
    frames = films.pictures(moves=True, seed=0)
    films.write_gif(root / "b.gif", frames)
    films.write_gif(root / "deep" / "er" / "c.webp", frames[:5])
    films.write_folder(root / "a", frames[:3])
    (root / "deep" / "notes.txt").write_text("no video")
    films.write_folder(root / ".hidden", frames)
    return root


def test_videos_are_found_at_any_depth(root: Path) -> None:
    found = scan(root)
    assert [video.name for video in found.videos] == ["a", "b.gif", "deep/er/c.webp"]
    assert [len(video.timeline.starts) for video in found.videos] == [3, 8, 5]
    np.testing.assert_allclose(found.videos[0].timeline.starts, [0.0, 0.1, 0.2])
    assert found.videos[1].timeline.duration == pytest.approx(0.8)
    assert not found.skipped


def test_a_folder_of_stills_is_one_video_and_of_animations_several(tmp_path: Path) -> None:
    frames = films.pictures(moves=True, seed=0)
    (tmp_path / "stills").mkdir()
    for index, frame in enumerate(frames):
        frame.save(tmp_path / "stills" / f"{index}.webp")
    for name in ("x", "y"):
        films.write_gif(tmp_path / "moving" / f"{name}.webp", frames)
    films.write_gif(tmp_path / "previewed" / "z.gif", frames)
    frames[0].save(tmp_path / "previewed" / "z.png")
    names = [video.name for video in scan(tmp_path).videos]
    assert names == ["moving/x.webp", "moving/y.webp", "previewed/z.gif", "stills"]
    assert [video.name for video in scan(tmp_path / "stills").videos] == ["."]


def test_the_pace_of_an_animation_is_kept(tmp_path: Path) -> None:
    """Also where one picture is shown for long, and also through the cache."""
    frames = films.pictures(moves=True, seed=0)[:3]
    films.write_gif(tmp_path / "v" / "slow.gif", frames, duration_ms=[100, 800, 100])
    for _ in range(2):
        (video,) = scan(tmp_path / "v", tmp_path / "cache").videos
        np.testing.assert_allclose(video.timeline.starts, [0.0, 0.1, 0.9])
        assert not video.timeline.is_even


def test_a_restart_looks_at_what_is_new_only(root: Path, tmp_path: Path, monkeypatch) -> None:
    (root / "broken.gif").write_bytes(b"GIF89a")
    cache, looked = tmp_path / "cache", []
    timeline = video_scan.timeline

    def watched(path: Path, **options: float) -> object:
        looked.append(path.name)
        return timeline(path, **options)

    monkeypatch.setattr(video_scan, "timeline", watched)
    first = scan(root, cache)
    assert sorted(looked) == ["a", "b.gif", "broken.gif", "c.webp"]
    assert list(first.skipped) == ["broken.gif"] and "damaged" in first.skipped["broken.gif"]
    looked.clear()
    again = scan(root, cache)
    assert looked == []
    assert again.digest == first.digest and again.skipped == first.skipped
    films.write_gif(root / "b.gif", films.pictures(moves=True, seed=1)[:4])
    (root / "broken.gif").unlink()
    changed = scan(root, cache)
    assert looked == ["b.gif"]
    assert changed.digest != first.digest and not changed.skipped
    assert len(changed.videos[1].timeline.starts) == 4
    (place,) = cache.iterdir()
    place.write_text("{")
    assert scan(root, cache).digest == changed.digest


def test_hidden_files_beside_pictures_change_nothing(root: Path) -> None:
    before = scan(root)
    (root / "a" / "._0000.png").write_bytes(b"resources")
    after = scan(root)
    assert after.digest == before.digest
    assert len(after.videos[0].timeline.starts) == len(before.videos[0].timeline.starts)


def test_what_the_first_version_found_is_looked_at_again(root: Path, tmp_path: Path) -> None:
    """It counted pictures that are not shown, where a film was cut without encoding it anew."""
    cache = tmp_path / "cache"
    wanted = scan(root, cache)
    (place,) = cache.iterdir()
    kept = read_json(place)
    kept["version"], kept["videos"]["b.gif"]["pictures"] = 1, 100
    write_json(place, kept)
    assert scan(root, cache).digest == wanted.digest


def test_what_was_seen_before_an_interruption_counts(
    root: Path, tmp_path: Path, monkeypatch
) -> None:
    timeline, looked = video_scan.timeline, []

    def interrupted(path: Path, **options: float) -> object:
        looked.append(path.name)
        if path.name == "b.gif":
            raise KeyboardInterrupt
        return timeline(path, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(video_scan, "timeline", interrupted)
        scan(root, tmp_path / "cache", threads=1)
    looked.clear()
    monkeypatch.setattr(
        video_scan, "timeline", lambda path, **o: looked.append(path.name) or timeline(path, **o)
    )
    assert len(scan(root, tmp_path / "cache").videos) == 3
    assert looked == ["b.gif", "c.webp"]


def test_folders_without_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder at .*nowhere"):
        scan(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no videos in .*empty: wanted avi, .*mp4.*it is empty"):
        scan(tmp_path / "empty")
    (tmp_path / "empty" / "table.csv").write_text("1")
    with pytest.raises(DataError, match=r"it holds \.csv"):
        scan(tmp_path / "empty")
    (tmp_path / "empty" / "cut.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match="none of the 1 videos in .* can be read: cut.gif .damaged"):
        scan(tmp_path / "empty")
    with pytest.raises(DataError, match="folder_fps: wanted a number above 0, got 0"):
        scan(tmp_path, folder_fps=0)


def test_a_still_picture_is_no_video(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "still.gif")
    assert "still picture" in scan(root).skipped["still.gif"]
