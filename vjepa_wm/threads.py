"""Independent pieces of tensor work on a CPU, side by side.

PyTorch splits every operator among the cores and waits for all of them after each. Where operators
take microseconds that waiting costs a good part of the machine; pieces that go through all their
operators on a core of their own wait once, at the end.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], *, workers: int
) -> list[Result]:
    """Do work on every piece, several at a time, without gradients; results in the pieces' order.

    Each worker gets its share of the threads PyTorch has in the calling thread. The first error is
    raised once all pieces are done.

    Args:
        work: must be safe to call from several threads at once.
        pieces: what to do it on.
        workers: how many at a time; 1 works in the calling thread.
    """
    if workers == 1 or len(pieces) == 1:
        return [work(piece) for piece in pieces]
    threads = torch.get_num_threads()

    @torch.no_grad()  # each thread has a gradient mode of its own, on at first
    def piece_of_work(piece: Piece) -> Result:
        torch.set_num_threads(max(1, threads // workers))
        return work(piece)

    # The process is part of the key: after a fork the threads of the parent's pool are missing
    futures = [_pool(workers, os.getpid()).submit(piece_of_work, piece) for piece in pieces]
    wait(futures)
    torch.set_num_threads(threads)  # what a worker set is also what later threads would begin with
    return [future.result() for future in futures]


@lru_cache
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    del process
    return ThreadPoolExecutor(workers, thread_name_prefix="imagine")
