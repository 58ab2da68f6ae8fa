"""Peak memory, counted: of known sums, and flat where candidates are imagined in chunks."""

import torch

from vjepa_wm.benchmarks.memory import peak_bytes
from vjepa_wm.benchmarks.slopes import Load, imagining, random_world_model

KB = 1024
PREDICTOR = {"latent_dim": 12, "grid": (2, 2), "action_dim": 2, "width": 24, "depth": 2}
PREDICTOR |= {"num_heads": 2, "max_frames": 4}


def test_what_lives_at_once_is_added_up() -> None:
    """Inputs do not count, views share, and what has gone is no longer there."""
    given = torch.zeros(KB)

    def call() -> None:
        first = given + 1  # 4 KB
        assert first.view(2, -1)[0].shape == (KB // 2,)
        second = first * 2  # 8 KB
        del first, second
        assert (given + 1).add_(1).sum() == 2 * KB  # 4 KB and a number

    assert peak_bytes(call) == 8 * KB
    assert peak_bytes(lambda: given.view(4, -1)) == 0


@torch.no_grad()
def test_imagining_takes_no_more_than_its_budget_whatever_the_candidates() -> None:
    """Eight times the candidates in as many chunks: all that grows is their costs."""
    model = random_world_model(PREDICTOR, memory_mb=0.2, dtype=torch.float32, device="cpu")
    rows = model.rows_at_once(4)
    assert 1 < rows < 64
    few, many = (
        peak_bytes(imagining(model, Load(1, count, 4, 4), device="cpu"))
        for count in (rows, 8 * rows)
    )
    assert few < 0.2 * 2**20
    assert few <= many < few + 8 * rows * 16
