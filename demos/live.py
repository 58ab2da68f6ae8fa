"""Pictures shown in a browser while they are made, also from a machine without a screen.

The page is served to this machine alone. From another one it is seen through a tunnel:
ssh -L 8000:localhost:8000 MACHINE, then http://localhost:8000.
"""

import io
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread

from PIL import Image

from vjepa_wm.errors import VjepaWmError

HOST = "127.0.0.1"
_BOUNDARY = "frame"
_PATIENCE_S = 1.0  # after which a viewer looks whether the show is over
_PAGE = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>vjepa-wm live</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>body{margin:0;background:#fff;display:grid;place-items:center;min-height:100vh}
img{width:min(100vw,1200px)}</style></head>
<body><img src="/stream" alt="now, goal, and what is imagined"></body></html>
"""


class LiveView:
    """Serves the newest picture to any number of browsers.

    Args:
        port: where to; 0 takes any free one, `address` says which.

    Raises:
        VjepaWmError: the port is taken, or not allowed.
    """

    def __init__(self, port: int) -> None:
        self._news = Condition()
        self._picture = b""
        self._count = 0  # of pictures so far
        self._is_over = False
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler(self))
        except (OSError, OverflowError) as error:
            raise VjepaWmError(
                f"live: cannot serve on port {port} ({error}); wanted a free port such as 8000, or "
                "0 for any"
            ) from error
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self._server.server_port}"

    def show(self, image: Image.Image) -> None:
        """Put a picture in place of the last one."""
        file = io.BytesIO()
        image.convert("RGB").save(file, "JPEG", quality=90)
        with self._news:
            self._picture = file.getvalue()
            self._count += 1
            self._news.notify_all()

    def close(self) -> None:
        """End the show; browsers keep the last picture."""
        with self._news:
            self._is_over = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def next_picture(self, seen: int) -> tuple[int, bytes] | None:
        """Wait for a picture after the first `seen`: its number and JPEG; None when all is over."""
        with self._news:
            while self._count <= seen and not self._is_over:
                self._news.wait(_PATIENCE_S)
            return (self._count, self._picture) if self._count > seen else None


def _handler(view: LiveView) -> type[BaseHTTPRequestHandler]:
    """Return what answers a view's browsers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                self._send_page()
            elif self.path == "/stream":
                self._send_pictures()
            else:
                self.send_error(404)

        def _send_page(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(_PAGE)))
            self.end_headers()
            self.wfile.write(_PAGE)

        def _send_pictures(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            seen = 0
            try:
                while (found := view.next_picture(seen)) is not None:
                    seen, picture = found
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                    part = f"--{_BOUNDARY}\r\n{head}".encode() + picture + b"\r\n"
                    self.wfile.write(part)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the browser has gone

        def log_message(self, *_: object) -> None:
            """Keep quiet: the terminal is the demo's."""

    return Handler
