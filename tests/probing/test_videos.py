"""A folder of videos becomes clips with classes; what cannot be used is listed, not used."""

from pathlib import Path

import numpy as np
import pytest

from tests import films
from vjepa_wm.errors import DataError
from vjepa_wm.probing import videos as module
from vjepa_wm.probing.videos import VideoFolder


def open_folder(root: Path, **changed: object) -> VideoFolder:
    options = {"num_frames": 4, "fps": None, "folder_fps": 12.0, "side": 16, **changed}
    return VideoFolder.open(root, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return films.write_classes(tmp_path / "videos", videos=3)


def test_clips_have_the_class_of_their_folder(root: Path) -> None:
    videos = open_folder(root)
    assert videos.classes == ("moving", "still")
    assert len(videos) == 6 and videos.skipped == {}
    assert [path.parent.name for path in videos.paths] == ["moving"] * 3 + ["still"] * 3
    assert videos.labels.tolist() == [0, 0, 0, 1, 1, 1]
    pixels, faults = videos.read(np.array([5, 0]))
    assert pixels.shape == (2, 4, 16, 16, 3) and not faults
    brightest = pixels.max(axis=-1) > 200  # (B, T, S, S): where the square is
    assert (brightest[0, 0] & brightest[0, -1]).any()  # rests
    assert not (brightest[1, 0] & brightest[1, -1]).any()  # moved on


def test_folders_of_pictures_are_videos_too(root: Path) -> None:
    films.write_folder(root / "still" / "pictures", films.pictures(moves=False, seed=9))
    videos = open_folder(root)
    assert len(videos) == 7
    with pytest.raises(DataError, match="class 'moving' has no video that can be used"):
        open_folder(root, fps=4.0, num_frames=8)  # gifs are 0.8 s long
    assert len(open_folder(root, fps=12.0, num_frames=4)) == 7


def test_what_cannot_be_used_is_listed_with_its_reason(root: Path) -> None:
    (root / "moving" / "damaged.gif").write_bytes(b"GIF89a")
    (root / "moving" / "notes.txt").write_text("not a video")
    (root / "moving" / ".hidden").write_text("nobody's business")
    films.write_folder(root / "still" / "short", films.pictures(moves=False, seed=9)[:3])
    videos = open_folder(root)
    assert len(videos) == 6
    assert set(videos.skipped) == {"moving/damaged.gif", "moving/notes.txt", "still/short"}
    assert "too short: 3 pictures, wanted 4" in videos.skipped["still/short"]
    assert "damaged" in videos.skipped["moving/damaged.gif"]


def test_a_file_that_breaks_later_is_reported_by_row(root: Path) -> None:
    videos = open_folder(root)
    videos.paths[1].write_bytes(b"GIF89a")
    pixels, faults = videos.read(np.array([0, 1]))
    assert list(faults) == [1] and "damaged" in faults[1]
    assert pixels[0].any() and not pixels[1].any()
    assert list(videos.named(faults)) == ["moving/001.gif"]


def test_the_digest_names_videos_and_how_they_are_read(root: Path, monkeypatch) -> None:
    first = open_folder(root).digest
    assert open_folder(root).digest == first
    assert open_folder(root, side=24).digest != first
    assert open_folder(root, num_frames=3).digest != first
    with monkeypatch.context() as patch:  # that took pictures in another order, and lying
        patch.setattr(module, "VERSION", 1)
        assert open_folder(root).digest != first
    films.write_gif(root / "still" / "000.gif", films.pictures(moves=False, seed=99))
    assert open_folder(root).digest != first


def test_unusable_folders_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of videos at"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"1 folders, wanted one per class"):
        open_folder(root.parent)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="class 'empty' is empty"):
        open_folder(root)
    films.write_gif(root / "empty" / "moving" / "0.gif", films.pictures(moves=True, seed=0))
    with pytest.raises(DataError, match="classes are one level deeper, name"):
        open_folder(root)
    with pytest.raises(DataError, match="fps: wanted a number above 0, got -1"):
        open_folder(root, fps=-1)


def test_what_lies_beside_pictures_is_not_read(root: Path) -> None:
    folder = root / "still" / "pictures"
    films.write_folder(folder, films.pictures(moves=False, seed=9))
    before = open_folder(root).digest
    (folder / "masks").mkdir()
    (folder / "notes.txt").write_text("not a picture")
    assert open_folder(root).digest == before
