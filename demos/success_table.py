"""Print how often goals were reached: python -m demos.success_table (the end of make demo).

The demos of this machine stand beside the figures measured once on frozen tasks and shipped
with the weights; `python -m vjepa_wm.evaluate env=push agent=all` measures them again.
"""

import argparse
from pathlib import Path

from vjepa_wm.encoders.registry import shipped_folder
from vjepa_wm.files import read_json
from vjepa_wm.loading import SHIPPED

DEMOS = Path("runs/demos")
AGENTS = {
    "random": "random actions",
    "bc": "behaviour cloning",
    "mpc": "agent",
    "simulator": "true simulator",
}


def main() -> None:
    """Print the table."""
    print(f"{'environment':<12} {'goals':<6} {'these demos':>12}", end="")
    print("".join(f"{title:>26}" for title in AGENTS.values()))
    for name in SHIPPED:
        evaluation = shipped_folder(name) / "evaluation.json"
        if not evaluation.exists():
            continue
        for summary in read_json(evaluation):
            demo = DEMOS / f"{name}.json"
            shown = ""
            if demo.exists():
                result = read_json(demo)
                if result["level"] == summary["level"]:
                    shown = f"{result['reached']} of {result['episodes']}"
            rows = {row["agent"]: row for row in summary["rows"]}
            cells = "".join(
                f"{_cell(rows[agent]) if agent in rows else 'not measured':>26}" for agent in AGENTS
            )
            print(f"{name:<12} {summary['level']:<6} {shown:>12}{cells}")
    print("success in %, with 95 % interval and number of episodes")


def _cell(row: dict) -> str:
    rate, low, high = (100 * share for share in (row["success"], *row["interval"]))
    return f"{rate:.0f} [{low:.0f}, {high:.0f}] n={row['episodes']}"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help, and no other options
    main()
