"""Fetches published files into the cache folder, and remembers the digest of large files."""

import hashlib
import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from vjepa_wm.errors import CheckpointError, DataError
from vjepa_wm.files import read_json, write_json
from vjepa_wm.progress import Progress, progress

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

logger = logging.getLogger(__name__)

HOME_VARIABLE = "VJEPA_WM_HOME"
TIMEOUT_S = 30.0
ATTEMPTS = 5  # in a row that bring nothing
PAUSE_S = 1.0  # between attempts
_BLOCK_BYTES = 1 << 20


def home() -> Path:
    """Return the cache folder: $VJEPA_WM_HOME, or ~/.cache/vjepa_wm."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "vjepa_wm"


def cached_file(file: str, url: str, *, size_gb: float) -> Path:
    """Return a published file in the cache folder, downloading it when it is not there.

    Args:
        file: its name in the cache folder.
        url: where it is published.
        size_gb: roughly, for the message when it cannot be had.

    Raises:
        CheckpointError: it cannot be downloaded; the message says where to put it by hand.
    """
    path = home() / file
    if path.is_file():
        return path
    try:
        return fetch(url, path)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise CheckpointError(
            f"{file} (about {size_gb:g} GB) is not in {home()} and cannot be downloaded: {reason}. "
            f"Online, the same command continues where it stopped. Offline, download {url} on "
            f"another machine and put it at {path}, or give its path as checkpoint"
        ) from error


def fetch(url: str, path: Path, *, progress: Progress = progress) -> Path:
    """Download a file, continuing an earlier attempt, and record its digest beside it.

    What has arrived waits in `<path>.part`; the file appears under its own name when it is whole.

    Raises:
        OSError: the server cannot be reached, refuses, or breaks off again and again; also
            http.client.HTTPException.
        CheckpointError: the disk is too small, another process downloads the same file, or what
            arrived is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with _locked(part) as file:
        with progress(desc=f"downloading {path.name}", unit="B") as bar:
            _receive_all(url, file, part, bar)
        os.fsync(file.fileno())
        try:
            _check_zip(part, progress=progress)
        except CheckpointError:
            part.unlink()
            raise
    os.replace(part, path)
    _version_path(part).unlink(missing_ok=True)
    _write_record(path, sha256(path, progress=progress), url=url)
    return path


class _UnreachableError(OSError):
    """There is no connection at all; trying again at once is no use."""


def _receive_all(url: str, file: BinaryIO, part: Path, bar: tqdm) -> None:
    """Receive until the file is whole, in as many connections as it takes."""
    failures = 0
    while True:
        before = file.tell()
        try:
            return _receive(url, file, part, bar)
        except (OSError, http.client.HTTPException) as error:
            failures = 1 if file.tell() > before else failures + 1
            is_refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if is_refused or isinstance(error, _UnreachableError) or failures >= ATTEMPTS:
                raise
            logger.warning("%s; continuing at byte %d", error, file.tell())
            time.sleep(PAUSE_S)


def _receive(url: str, file: BinaryIO, part: Path, bar: tqdm) -> None:
    """Append what is missing of a file, in one connection."""
    version_path = _version_path(part)
    version = version_path.read_text(encoding="utf-8") if version_path.is_file() else ""
    start = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": "vjepa-wm"})
    if start and version:
        # With If-Range the server sends the whole file when it is no longer the same
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers["Content-Range"] == f"bytes */{start}":
            return  # it was whole already
        _empty(file)
        raise ConnectionError("more was here than the server has; starting again") from error
    except urllib.error.URLError as error:
        raise _UnreachableError(error.reason) from error
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
            _empty(file)
        version_path.write_text(
            response.headers["ETag"] or response.headers["Last-Modified"] or "", encoding="utf-8"
        )
        _copy(response, file, start=start, bar=bar, folder=part.parent)


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, *, start: int, bar: tqdm, folder: Path
) -> None:
    """Append a response's body to a file that holds `start` bytes, and check the length."""
    length = response.headers["Content-Length"]
    total = None
    if length is not None:
        total = start + int(length)
        _check_space(folder, int(length))
    bar.total, bar.n = total, start
    bar.refresh()
    while block := response.read(_BLOCK_BYTES):
        file.write(block)
        bar.update(len(block))
    file.flush()
    if total is not None and file.tell() != total:
        raise ConnectionError(f"the connection broke at byte {file.tell()} of {total}")


def _empty(file: BinaryIO) -> None:
    file.truncate(0)
    file.seek(0)


def _version_path(part: Path) -> Path:
    """Where the server's mark of the version that is being downloaded is kept."""
    return part.with_name(f"{part.name}.version")


def _check_space(folder: Path, wanted_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if wanted_bytes > free_bytes:
        raise CheckpointError(
            f"the download needs {wanted_bytes / 1e9:.1f} GB more, {folder} has "
            f"{free_bytes / 1e9:.1f} GB free: make room, or set {HOME_VARIABLE} to a folder on "
            "another disk"
        )


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Open a file for appending, alone among processes (where the system has such locks)."""
    with open(part, "ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CheckpointError(
                    f"another process is downloading {part}: wait for it"
                ) from error
        yield file


@dataclass(frozen=True)
class _Record:
    """What is remembered of a file, beside it."""

    size: int
    mtime_ns: int
    sha256: str
    url: str | None


def recorded_digest(path: Path, *, progress: Progress = progress) -> str:
    """Return the SHA-256 of a file, computed once and remembered in `<path>.digest.json`.

    It is computed again when the size or the time of the file has changed. At that occasion the
    checksums inside a file that PyTorch wrote are compared with its contents.

    Raises:
        CheckpointError: the contents are damaged, or differ from what was downloaded.
    """
    record = _read_record(path)
    stat = path.stat()
    if record is not None and (record.size, record.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return record.sha256
    return verified_digest(path, progress=progress)


def verified_digest(path: Path, *, progress: Progress = progress) -> str:
    """Read a whole file and return its SHA-256, as `recorded_digest` does the first time.

    Raises:
        CheckpointError: the contents are damaged, or differ from what was downloaded.
    """
    record = _read_record(path)
    _check_zip(path, progress=progress)
    found = sha256(path, progress=progress)
    url = None if record is None else record.url
    if record is not None and url is not None and record.sha256 != found:
        raise CheckpointError(
            f"{path} is not what was downloaded from {url}: its SHA-256 was {record.sha256} then, "
            f"it is {found} now. Delete it and {_record_path(path).name} beside it to download it "
            "again"
        )
    _write_record(path, found, url=url)
    return found


def sha256(path: Path, *, progress: Progress = progress) -> str:
    """Return the SHA-256 of a file as hex digits."""
    state = hashlib.sha256()
    total = path.stat().st_size
    with (
        open(path, "rb") as file,
        progress(total=total, desc=f"digest {path.name}", unit="B") as bar,
    ):
        while block := file.read(_BLOCK_BYTES):
            state.update(block)
            bar.update(len(block))
    return state.hexdigest()


def _check_zip(path: Path, *, progress: Progress) -> None:
    """Compare every entry of a zip archive, such as PyTorch writes, with its checksum."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
            with progress(total=total, desc=f"checking {path.name}", unit="B") as bar:
                for entry in archive.infolist():
                    with archive.open(entry) as file:
                        while block := file.read(_BLOCK_BYTES):
                            bar.update(len(block))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): download or copy it again") from error


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.digest.json")


def _read_record(path: Path) -> _Record | None:
    """Read what is remembered of a file; None when there is nothing that can be read."""
    try:
        return _Record(**read_json(_record_path(path)))
    except (DataError, TypeError):
        return None


def _write_record(path: Path, digest: str, *, url: str | None) -> None:
    stat = path.stat()
    record = _Record(size=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=digest, url=url)
    try:
        write_json(_record_path(path), vars(record))
    except OSError as error:  # a folder for reading only: computed again next time
        logger.warning("the digest of %s cannot be kept beside it: %s", path, error)
