"""The live view: a browser gets each new picture, several may look, and a taken port is said."""

import io
import urllib.error
import urllib.request
from contextlib import closing
from http.client import HTTPResponse
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from demos.live import LiveView
from vjepa_wm.errors import VjepaWmError


def plain(level: int) -> Image.Image:
    """A grey picture."""
    return Image.fromarray(np.full((40, 60, 3), level, np.uint8))


def read_part(response: HTTPResponse) -> Image.Image:
    """Read one picture of the stream."""
    assert response.readline() == b"--frame\r\n"
    assert response.readline() == b"Content-Type: image/jpeg\r\n"
    length = int(response.readline().split()[1])
    assert response.readline() == b"\r\n"
    picture = Image.open(io.BytesIO(response.read(length)))
    assert response.readline() == b"\r\n"
    return picture


def open_at(address: str) -> HTTPResponse:
    return urllib.request.urlopen(address, timeout=20)


def test_browsers_get_each_new_picture() -> None:
    with closing(LiveView(0)) as view:
        assert b"/stream" in open_at(view.address).read()
        view.show(plain(50))
        streams = [open_at(f"{view.address}/stream") for _ in range(2)]
        for level in (50, 200):
            if level != 50:
                view.show(plain(level))
            for stream in streams:
                picture = read_part(stream)
                assert picture.size == (60, 40)
                assert abs(np.asarray(picture).mean() - level) < 2


def test_streams_end_with_the_show() -> None:
    view = LiveView(0)
    view.show(plain(9))
    stream = open_at(f"{view.address}/stream")
    read_part(stream)
    closer = Thread(target=view.close)
    closer.start()
    assert stream.read() == b""
    closer.join(20)
    assert not closer.is_alive()


def test_nothing_else_is_served() -> None:
    with closing(LiveView(0)) as view, pytest.raises(urllib.error.HTTPError, match="404"):
        open_at(f"{view.address}/etc/passwd")


def test_a_taken_port_is_said() -> None:
    with closing(LiveView(0)) as view:
        port = int(view.address.rpartition(":")[2])
        with pytest.raises(VjepaWmError, match=f"port {port}.*wanted a free port"):
            LiveView(port)
    with pytest.raises(VjepaWmError, match="wanted a free port"):
        LiveView(70_000)
