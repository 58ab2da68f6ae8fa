"""Put evaluation runs side by side: python -m vjepa_wm.compare runs/evaluate/a runs/evaluate/b.

Runs of the same environment and level are compared task by task with the first of them: the
difference in success with its 95 % interval (Newcombe's, of paired proportions), how many goals
were gained and lost, how likely chance alone does that (McNemar's exact test), and which options
differ. With --seeds the runs are taken for one method trained with several seeds: for each
environment, level and agent the mean success over seeds with two 95 % intervals, over seeds on
these tasks and over tasks.
"""

import argparse
import sys
from pathlib import Path

from vjepa_wm.cli import EXIT_USAGE
from vjepa_wm.errors import VjepaWmError
from vjepa_wm.evaluation.comparison import comparison, over_seeds, read_run


def main() -> None:
    """Run the verb."""
    parser = argparse.ArgumentParser(
        prog="python -m vjepa_wm.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders that evaluate wrote")
    parser.add_argument("--seeds", action="store_true", help="runs of one method, one per seed")
    options = parser.parse_args()
    try:
        entries = [entry for folder in options.runs for entry in read_run(folder)]
        lines = over_seeds(entries) if options.seeds else comparison(entries)
        print("\n".join(lines))
    except VjepaWmError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
