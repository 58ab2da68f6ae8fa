"""Several processes that train one network, started by torchrun. Alone, every function is a no-op.

    torchrun --nproc-per-node 2 -m vjepa_wm.pretrain ...

Each process works through its part of every batch; gradients are averaged after the backward pass,
so all take the same step. Unlike `DistributedDataParallel` this asks nothing of the module: a loss
may call any of its methods, in pieces.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# Imported later, by an optimiser say, its defaults would keep the group that then exists, and with
# it gloo's threads, which now and then abort a process that exits.
import torch.distributed.nn.functional  # noqa: F401
from torch import Tensor

from vjepa_wm.errors import VjepaWmError
from vjepa_wm.precision import check_device

BUCKET = 1 << 24  # gradient entries that are averaged together
PATIENCE = timedelta(hours=2)  # how long a process waits for the others; the first one validates


@contextmanager
def processes(device: str) -> Iterator[str]:
    """Join the other processes that torchrun started, if any, for the length of the block.

    Args:
        device: `cpu`, `cuda` or another; of `cuda` each process takes a card of its own.

    Yields:
        The device of this process.

    Raises:
        SettingError: There are fewer cards than processes.
        VjepaWmError: Another process has ended.
    """
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(check_device(device))
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield device
    except RuntimeError as error:
        if "onnection" not in str(error):  # as in "Connection closed by peer"
            raise
        raise VjepaWmError(f"process {rank()} ends, as another one has; see its error") from error
    # Not after an error, in which the others do not join
    wait()
    dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that prints, saves and validates."""
    return rank() == 0


def wait() -> None:
    """Wait until all processes are here."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def first_before_others() -> Iterator[None]:
    """Run a block in the first process, then in all others, which find what it left on disk."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Give every process the mean of all processes' gradients, the same bits to each."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    entries = 0
    for gradient in gradients:
        bucket.append(gradient)
        entries += gradient.numel()
        if entries >= BUCKET:
            yield bucket
            bucket, entries = [], 0
    if bucket:
        yield bucket


def average(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Mean of each figure over the processes, which all have the same figures."""
    if world_size() == 1:
        return dict(values)
    numbers = torch.tensor(list(values.values()), dtype=torch.float32, device=device)
    dist.all_reduce(numbers)
    return dict(zip(values, (numbers / world_size()).tolist(), strict=True))


def from_first(value: Any) -> Any:
    """Return what the first process passes, to all."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: Any) -> list[Any]:
    """Return what each process passes, to all."""
    if world_size() == 1:
        return [value]
    box = [None] * world_size()
    dist.all_gather_object(box, value)
    return box


@torch.no_grad()
def share_state(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values, in place."""
    if world_size() == 1:
        return
    for tensor in tensors:
        dist.broadcast(tensor, src=0)


class _Gathered(torch.autograd.Function):
    """All processes' rows; each computes the same of them, so its own gradient is the whole."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        ctx.length = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient[rank() * ctx.length : (rank() + 1) * ctx.length]
        return own * world_size()  # undoes the mean that `average_gradients` takes


def gathered(rows: Tensor) -> Tensor:
    """Rows (B, ...) of all processes one after the other, for a loss over the whole batch.

    Every process has to compute the same of them. Alone, the rows themselves.
    """
    return rows if world_size() == 1 else _Gathered.apply(rows)
