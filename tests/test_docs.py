"""The programs in docs/planners.md run as they stand, one after another, and do what they say."""

import re
from pathlib import Path

import torch

DOCS = Path(__file__).parents[1] / "docs"


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
