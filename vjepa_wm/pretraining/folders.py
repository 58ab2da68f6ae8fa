"""Folders that clips are drawn from, opened as sources, and what of them could not be used."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vjepa_wm import distributed
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.data.video_scan import VideoScan
from vjepa_wm.errors import DataError, SettingError
from vjepa_wm.files import write_json
from vjepa_wm.pretraining.clips import Augment, ClipSteps
from vjepa_wm.pretraining.sources import Source, TrajectorySource, VideoSource

SKIPPED = "skipped_videos.json"
SHOWN_SKIPPED = 3

logger = logging.getLogger(__name__)


def open_sources(
    folders: Sequence[str | Path],
    *,
    num_frames: int,
    image_size: int,
    steps: ClipSteps,
    augment: Augment,
    scan: Callable[[Path], VideoScan],
) -> list[Source]:
    """Open folders: of trajectories, or else of videos.

    Args:
        folders: One source each.
        num_frames: Frames per clip.
        image_size: Side of the square, pixels.
        steps: How far apart frames are.
        augment: Random cuts, of videos and perhaps of trajectories.
        scan: Looks at the videos of a folder.

    Raises:
        SettingError: There are no folders.
        DataError: A folder is missing, damaged, or holds nothing that can be used.
    """
    if not folders:
        raise SettingError("data: wanted at least one folder of trajectories or videos, got none")
    sources: list[Source] = []
    for folder in map(Path, folders):
        if (folder / "meta.json").exists() or (folder / "shards").is_dir():
            source = TrajectorySource(
                open_trajectories(folder, image_size=image_size),
                num_frames=num_frames,
                steps=steps,
                augment=augment if augment.trajectories else None,
            )
        else:
            source = VideoSource(
                scan(folder), num_frames=num_frames, steps=steps, side=image_size, augment=augment
            )
        sources.append(source)
    return sources


def open_trajectories(folder: Path, *, image_size: int) -> Trajectories:
    """Open trajectories whose frames have the size the encoder is trained for.

    Raises:
        DataError: The folder is damaged, or its frames have another size.
    """
    trajectories = Trajectories.open(folder)
    if tuple(trajectories.meta.image_size) != (image_size, image_size):
        raise DataError(
            f"{trajectories.folder}: wanted frames of {(image_size, image_size)}, the option "
            f"image_size, got {trajectories.meta.image_size}"
        )
    return trajectories


def add_faults(sources: Sequence[Source], faults: Sequence[Mapping[str, str]]) -> bool:
    """Add the videos that broke during training, in any process; whether there are any."""
    found = False
    for part in distributed.from_all(list(faults)):
        for source, own in zip(sources, part, strict=True):
            if isinstance(source, VideoSource) and own:
                source.skipped |= own
                found = True
    return found


def report_skipped(out: Path, sources: Sequence[Source]) -> None:
    """Say how many videos are left out, and list all of them in the folder of the run."""
    videos = [source for source in sources if isinstance(source, VideoSource)]
    skipped = {str(source.folder): source.skipped for source in videos if source.skipped}
    if not skipped or not distributed.is_first():
        return
    write_json(out / SKIPPED, skipped)
    for folder, faults in skipped.items():
        shown = [f"{name} ({why})" for name, why in list(faults.items())[:SHOWN_SKIPPED]]
        more = len(faults) - len(shown)
        logger.warning(
            "%s: %d videos left out: %s%s; listed in %s",
            folder,
            len(faults),
            "; ".join(shown),
            f" and {more} more" if more else "",
            out / SKIPPED,
        )
