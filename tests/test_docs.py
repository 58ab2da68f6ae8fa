"""The programs in docs/planners.md run as they stand and do what they say; links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md"), *ROOT.glob("vjepa_wm/weights/*/*.md")])


def test_the_snippets_of_planners_run(capsys) -> None:
    text = (DOCS / "planners.md").read_text(encoding="utf-8")
    snippets = re.findall(r"(?ms)^```python\n(.*?)^```$", text)
    assert len(snippets) == 6
    names: dict = {}
    torch.manual_seed(0)
    results = []
    for snippet in snippets:
        exec(compile(snippet, "docs/planners.md", "exec"), names)
        results.append(names["plan"])
    linear, _, _, learned, simulated, discrete = results
    assert (linear.cost < 0.2 * names["goals"].square().sum(-1)).all()  # of standing still
    norms = names["short"].plan(names["cost"], **names["bounds"], batch_size=2).actions.norm(dim=-1)
    assert float(norms.max()) <= 1 + 1e-6
    assert float(simulated.cost) < 0.5 * 20 * torch.pi**2  # of hanging still
    assert learned.actions.shape == (1, 5, 2) and float(learned.cost) > 0
    assert discrete.actions.dtype == torch.int64 and float(discrete.cost) <= 1
    names["env"].close()
    assert "tensor" in capsys.readouterr().out


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def without_code(page: Path) -> str:
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)\s]+)\)", without_code(page)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", without_code(target))
            assert anchor in map(slug, headings), link
