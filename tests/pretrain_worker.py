"""One process of a pretraining under torchrun, which also keeps its own state for comparison."""

import sys
from pathlib import Path

import torch
from torch import Tensor

from vjepa_wm import distributed, pretrain
from vjepa_wm.pretraining.anti_collapse import variance_covariance
from vjepa_wm.pretraining.jepa import JEPA

OWN = Path(sys.argv[1])


def check_gathered() -> None:
    """A term over all rows has the gradient that one process with all rows gives."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(4, 6, 5, generator=generator)
    groups = torch.arange(6).expand(4, 6)
    weight = torch.randn(5, 5, generator=generator, requires_grad=True)

    def term(rows: Tensor, ids: Tensor) -> Tensor:
        return sum(variance_covariance(rows, ids))

    term(whole @ weight, groups).backward()
    wanted, weight.grad = weight.grad, None
    own = slice(distributed.rank(), None, distributed.world_size())
    rows, ids = (distributed.gathered(part) for part in (whole[own] @ weight, groups[own]))
    term(rows, ids).backward()
    distributed.average_gradients([weight])
    torch.testing.assert_close(weight.grad, wanted)


def check_means() -> None:
    """Figures are averaged, objects come from the first or from all."""
    rank, size = distributed.rank(), distributed.world_size()
    mean = distributed.average({"a": float(rank)}, torch.device("cpu"))
    assert mean == {"a": (size - 1) / 2}
    assert distributed.from_first(rank) == 0
    assert distributed.from_all(rank) == list(range(size))


def check_ended() -> None:
    """No thread of the process group is left, which might abort the process as it exits."""
    threads = Path("/proc/self/task")  # Linux alone has it
    names = [(thread / "comm").read_text() for thread in threads.glob("*")]
    assert not [name for name in names if "gloo" in name], names


def main() -> None:
    """Train as the options say; the state after the last step is written for each process."""
    update = JEPA.update_target
    checked: list[bool] = []

    def kept(self: JEPA) -> None:
        if not checked:
            check_gathered()
            check_means()
            checked.append(True)
        update(self)
        torch.save(self.state_dict(), OWN / f"{distributed.rank()}.pt")

    JEPA.update_target = kept
    sys.argv[1:] = sys.argv[2:]
    pretrain.main()
    check_ended()


if __name__ == "__main__":
    main()
