"""The report in a real browser: no complaint, nothing asked of a network, no sideways scrolling."""

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evaluation.saved_runs import episodes, save_diagnosis, save_evaluation, save_training
from vjepa_wm.evaluation.html.report import write_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
]
REPORTS = sorted((Path(__file__).parents[2] / "docs" / "reports").glob("*.html"))
PATIENCE_SECONDS = 120.0
LONG = "runs/" + "a_rather_long_name_of_a_folder_without_any_gap_" * 3


class Tab:
    """A tab of a browser, spoken to over two pipes in the DevTools protocol."""

    def __init__(self, folder: Path) -> None:
        # The browser reads from descriptor 3 and writes to 4.
        inner_read, self.write_end = os.pipe()
        self.read_end, inner_write = os.pipe()
        command = f'exec "$@" 3<&{inner_read} 4>&{inner_write}'
        arguments = [BROWSER, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", *arguments],
            pass_fds=(inner_read, inner_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(inner_read), os.close(inner_write)
        self.events: list[dict] = []
        self.session: str | None = None
        self.count = 0
        self.buffer = b""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: object) -> dict:
        """Send a command and return its result; what comes before that is kept as events."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next()
            if "id" not in answer:
                self.events.append(answer)
            elif answer["id"] == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def next(self) -> dict:
        until = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read_end], [], [], until - time.monotonic())
            assert ready, f"the browser said nothing for {PATIENCE_SECONDS:.0f} s"
            piece = os.read(self.read_end, 1 << 16)
            assert piece, "the browser ended"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, *, width: int, scheme: str) -> None:
        """Show a file and wait until all of it is there."""
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.next())

    def value(self, expression: str) -> object:
        """Return what an expression of JavaScript is on the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"]["value"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read_end), os.close(self.write_end)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if BROWSER is None:
        pytest.skip("needs Chromium, which is not installed: apt-get install chromium")
    opened = Tab(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    agents = {"random": episodes(12, successes=1), "mpc": episodes(12, successes=8)}
    about = {"machine": "x" * 200}
    runs = [
        save_evaluation(folder / "a", agents, pictures=4, about=about),
        save_evaluation(folder / LONG, agents, pictures=1),
        save_diagnosis(folder / "diagnosis", is_bad=True),
        save_training(folder / "training"),
    ]
    write_page(folder / "report.html", [*runs, folder / ("nowhere" * 20)])
    return folder / "report.html"


@pytest.mark.parametrize("width", [320, 390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_complaint(
    tab: Tab, report: Path, width: int, scheme: str
) -> None:
    tab.open(report, width=width, scheme=scheme)
    check_page(tab, report, width=width)
    narrowest = "Math.min(...[...document.querySelectorAll('svg.plot')].map(p => p.clientWidth))"
    assert tab.value(narrowest) > 0.75 * min(width, 360)
    paper = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_phone_shows_the_reports_of_the_shipped_weights(tab: Tab, path: Path) -> None:
    tab.open(path, width=390, scheme="light")
    check_page(tab, path, width=390)


def check_page(tab: Tab, path: Path, *, width: int) -> None:
    """Find it as wide as the window, folded and unfolded, with all pictures, and alone."""
    assert tab.value("innerWidth") == width
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("[...document.querySelectorAll('details')].every(d => (d.open = true))")
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    complaints = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert [event for event in tab.events if event["method"] in complaints] == []
    asked = [e["params"]["request"]["url"] for e in tab.events if "request" in e["params"]]
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
