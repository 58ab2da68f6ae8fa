"""Downloads: resumed, verified, remembered; and what is said when there is no connection."""

import functools
import hashlib
import io
import re
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from tests import published_files
from vjepa_wm import downloads
from vjepa_wm.downloads import cached_file, fetch, home, recorded_digest, verified_digest
from vjepa_wm.encoders.registry import load_encoder
from vjepa_wm.errors import CheckpointError
from vjepa_wm.progress import no_progress

BODY = bytes(range(256)) * 40


class Server:
    """A loopback server of one file, which can break connections off.

    Attributes:
        body: what it serves.
        version: its ETag.
        breaks_after: bytes that each coming response sends before it breaks off.
        ranges: the Range header of every request so far.
    """

    def __init__(self) -> None:
        self.body = BODY
        self.version = '"one"'
        self.breaks_after: list[int] = []
        self.ranges: list[str | None] = []
        handler = functools.partial(Handler, self)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/weights/vitl.pt"


class Handler(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *args: object) -> None:
        self.owner = server
        super().__init__(*args)

    def do_GET(self) -> None:  # noqa: N802
        owner, wanted = self.owner, self.headers["Range"]
        owner.ranges.append(wanted)
        if "missing" in self.path:
            self.send_error(404)
            return
        start = 0
        if wanted and self.headers["If-Range"] == owner.version:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if start >= len(owner.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(owner.body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(owner.body) - start))
        self.send_header("ETag", owner.version)
        self.end_headers()
        sent = owner.breaks_after.pop(0) if owner.breaks_after else len(owner.body)
        self.wfile.write(owner.body[start : start + sent])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "PAUSE_S", 0.0)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VJEPA_WM_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_with_its_digest_beside_it(server: Server, cache: Path) -> None:
    path = fetch(server.url, cache / "vitl.pt", progress=no_progress)
    assert path.read_bytes() == BODY
    assert names(cache) == ["vitl.pt", "vitl.pt.digest.json"]
    assert recorded_digest(path) == hashlib.sha256(BODY).hexdigest()


def test_a_broken_connection_is_continued_where_it_broke(server: Server, cache: Path) -> None:
    server.breaks_after = [1000, 500]
    assert fetch(server.url, cache / "vitl.pt").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-", "bytes=1500-"]


def test_a_later_run_continues_what_an_earlier_one_left(server: Server, cache: Path) -> None:
    server.breaks_after = [3000, *[0] * (downloads.ATTEMPTS - 1)]
    with pytest.raises(ConnectionError, match="broke at byte 3000 of 10240"):
        fetch(server.url, cache / "vitl.pt")
    assert names(cache) == ["vitl.pt.part", "vitl.pt.part.version"]
    server.ranges.clear()
    assert fetch(server.url, cache / "vitl.pt").read_bytes() == BODY
    assert server.ranges == ["bytes=3000-"]


def test_a_part_that_was_whole_is_kept(server: Server, cache: Path) -> None:
    """The process ended between the last byte and the new name."""
    cache.mkdir()
    (cache / "vitl.pt.part").write_bytes(BODY)
    (cache / "vitl.pt.part.version").write_text(server.version)
    assert fetch(server.url, cache / "vitl.pt").read_bytes() == BODY
    assert server.ranges == ["bytes=10240-"]


@pytest.mark.parametrize("left", [BODY[:3000], BODY + b"more"])
def test_a_part_of_another_version_is_not_continued(
    server: Server, cache: Path, left: bytes
) -> None:
    cache.mkdir()
    (cache / "vitl.pt.part").write_bytes(left)
    (cache / "vitl.pt.part.version").write_text('"another"')
    assert fetch(server.url, cache / "vitl.pt").read_bytes() == BODY


def test_a_damaged_archive_is_not_kept(server: Server, cache: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data", BODY)
    raw = bytearray(buffer.getvalue())
    raw[200] ^= 1
    server.body = bytes(raw)
    with pytest.raises(CheckpointError, match="is damaged .*: download or copy it again"):
        fetch(server.url, cache / "vitl.pt")
    assert not (cache / "vitl.pt").exists() and not (cache / "vitl.pt.part").exists()


def test_what_is_in_the_cache_is_not_asked_for(cache: Path) -> None:
    cache.mkdir()
    (cache / "vitl.pt").write_bytes(BODY)
    assert cached_file("vitl.pt", "http://127.0.0.1:9/vitl.pt", size_gb=5) == cache / "vitl.pt"


@pytest.mark.parametrize("is_online", [False, True])
def test_without_the_file_the_error_says_where_to_get_and_put_it(
    server: Server, cache: Path, is_online: bool
) -> None:
    """Name, size, address and place: no connection, or no such file on the server."""
    url = server.url.replace("vitl", "missing")
    if not is_online:
        server.http.server_close()
    with pytest.raises(CheckpointError) as info:
        cached_file("vjepa2-vitl.pt", url, size_gb=5.1)
    for part in ("vjepa2-vitl.pt (about 5.1 GB)", url, f"put it at {cache / 'vjepa2-vitl.pt'}"):
        assert part in str(info.value)
    assert len(server.ranges) <= 1, "nothing is tried again that cannot help"


def test_a_disk_that_is_too_small_is_noticed_before_the_download(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage(1000, 0, 1000))
    with pytest.raises(CheckpointError, match="set VJEPA_WM_HOME to a folder on another disk"):
        fetch(server.url, cache / "vitl.pt")


def test_two_processes_do_not_write_one_file(server: Server, cache: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    cache.mkdir()
    with open(cache / "vitl.pt.part", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process is downloading"):
            fetch(server.url, cache / "vitl.pt")


def test_a_digest_is_computed_once(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch(server.url, cache / "vitl.pt")
    wanted = recorded_digest(path)
    monkeypatch.setattr(downloads, "sha256", lambda *_, **__: pytest.fail("computed again"))
    assert recorded_digest(path) == wanted


def test_a_download_that_was_changed_is_refused(server: Server, cache: Path) -> None:
    path = fetch(server.url, cache / "vitl.pt")
    path.write_bytes(BODY[:-1] + b"!")
    for read in (recorded_digest, verified_digest):
        with pytest.raises(CheckpointError, match=f"is not what was downloaded from {server.url}"):
            read(path)


def test_a_users_own_file_may_change(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(BODY)
    first = recorded_digest(path)
    path.write_bytes(BODY[1:])
    assert recorded_digest(path) == hashlib.sha256(BODY[1:]).hexdigest() != first


@pytest.mark.parametrize("record", ["", "{", '{"sha256": "0"}', "[]"])
def test_a_record_that_cannot_be_read_is_made_again(tmp_path: Path, record: str) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(BODY)
    (tmp_path / "mine.pt.digest.json").write_text(record)
    assert recorded_digest(path) == hashlib.sha256(BODY).hexdigest()


def test_the_cache_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VJEPA_WM_HOME", "~/weights")
    assert home() == Path.home() / "weights"
    monkeypatch.delenv("VJEPA_WM_HOME")
    assert home() == Path.home() / ".cache" / "vjepa_wm"


def test_a_published_encoder_is_downloaded_once(
    server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its name alone to latents; the second time without a server."""
    published_files.register(monkeypatch, url=server.url)
    server.body = published_files.write(tmp_path / "meta.pt", "tiny2").read_bytes()
    encoder = load_encoder("tiny2", dtype="fp32")
    assert (cache / published_files.TINY["tiny2"].file).is_file()
    server.http.server_close()
    again = load_encoder("tiny2", dtype="fp32")
    assert again.digest == encoder.digest
    assert torch.equal(again.vit.norm.weight, encoder.vit.norm.weight)
