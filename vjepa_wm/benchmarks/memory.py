"""How much memory a computation holds at most, counted tensor by tensor."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most bytes that tensors made during a call hold at once.

    What was there before does not count, nor does what a kernel takes for itself and gives back.
    The number does not depend on the machine, as long as what is computed does not.
    """
    with _LiveBytes() as counted:
        call()
    return counted.peak


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that operators bring forth, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            self._note(storage, size=0)  # a weight, or an input
        out = func(*args, **kwargs)
        for storage in _storages(out):
            self._note(storage, size=storage.nbytes())
        return out

    def _note(self, storage: UntypedStorage, *, size: int) -> None:
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, id(storage), size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _storages(tree: object) -> list[UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
