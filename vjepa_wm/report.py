"""Put saved runs into one HTML file: python -m vjepa_wm.report runs/evaluate/push_near.

Several runs, of any kind: python -m vjepa_wm.report runs/evaluate runs/diagnose/push out=all.html.
Folders are those of evaluate, diagnose, surprise, train_ac and pretrain, or of such. Only what lies
in them is used; a run that is incomplete is named with its reason, and the rest goes on. The file
opens offline in any browser.
"""

import argparse
import re
import sys
from pathlib import Path

from vjepa_wm.cli import EXIT_USAGE
from vjepa_wm.errors import UnknownNameError, VjepaWmError
from vjepa_wm.evaluation.html.report import REPORT_FILE, write_page

OPTIONS = ("out",)


def main() -> None:
    """Run the verb."""
    parser = argparse.ArgumentParser(
        usage="python -m vjepa_wm.report RUN [RUN ...] [out=report.html]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder to report")
    words = parser.parse_args().runs
    try:
        folders, out = sorted_out(words)
        problems = write_page(out, folders)
    except VjepaWmError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(f"report: {out}")


def sorted_out(words: list[str]) -> tuple[list[Path], Path]:
    """Tell run folders from options, which are written ``key=value``.

    Raises:
        UnknownNameError: If there is no such option.
        VjepaWmError: If no folder is named.
    """
    folders, out = [], Path(REPORT_FILE)
    for word in words:
        option = re.match(r"([a-z_]+)=(.*)", word)
        # A folder may have such a name, too: Hydra's sweeps make them.
        if option is None or Path(word).exists():
            folders.append(Path(word))
        elif option[1] not in OPTIONS:
            raise UnknownNameError("option", option[1], OPTIONS)
        else:
            out = Path(option[2])
    if not folders:
        raise VjepaWmError("wanted the folder of at least one run, got none")
    return folders, out


if __name__ == "__main__":
    main()
