"""Write files whole or not at all, and name contents by digest."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vjepa_wm.errors import DataError

_BLOCK_BYTES = 1 << 20


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, moved onto it when the block succeeds.

    A reader sees the old file or the whole new one, also when the process is killed.

    Args:
        path: The file to write; its folder is created.

    Yields:
        The temporary path, in the same folder and with the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # np.save and image writers look at the suffix, so it stays last.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(path: str | Path) -> None:
    """Delete what processes that were killed left of writing a file; nobody else may write it."""
    path = Path(path)
    for temporary in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
        temporary.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    """Wait until the file's contents are on disk, so that the rename never overtakes them."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: If the file is missing, truncated or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        size = path.stat().st_size
        raise DataError(
            f"{path} is not valid JSON ({error}); it has {size} bytes and may be cut off: "
            "restore it or delete it and run again what wrote it"
        ) from error


def digest(source: str | Path | bytes) -> str:
    """Return the BLAKE2b digest of a file's contents, or of bytes, as 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    if isinstance(source, bytes):
        state.update(source)
        return state.hexdigest()
    with open(source, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()
