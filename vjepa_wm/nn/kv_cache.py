"""Keys and values of the frames already seen, so that a step computes only its own tokens.

Shapes: B problems, N candidates, L tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]  # each (B, heads, L, head_dim)


class KVCache:
    """Keys and values of one attention layer: a past that candidates share, and what each adds.

    On a CPU nothing of the past is copied: attention reads it where it lies, for all candidates of
    a problem at once. Elsewhere the fused kernels want all keys of a row in one place, and every
    candidate gets its copy.

    Args:
        past: keys and values (B, heads, L, head_dim) of the tokens before; None is none.
        max_tokens: how many tokens fit, those of the past included.
        copies: candidates N of each problem; rows are (B * N), candidates of a problem together.
    """

    def __init__(self, past: KeysValues | None = None, *, max_tokens: int, copies: int = 1) -> None:
        self.max_tokens = max_tokens
        self.length = 0 if past is None else past[0].shape[2]
        self.past = past
        self._own: KeysValues | None = None  # each (B * N, heads, L, head_dim)
        self._store: Tensor | None = None  # where they lie on a GPU: room for all tokens
        if past is not None and past[0].device.type != "cpu":
            self.past = None
            self.length = 0
            self.append(*(part.repeat_interleave(copies, dim=0) for part in past))

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Add the tokens of one step; returns keys and values of all that are not in `past`."""
        end = self.length + keys.shape[2]
        if end > self.max_tokens:
            raise ValueError(f"the cache holds {self.max_tokens} tokens, {end} were wanted")
        # Autograd needs the old tokens as they were; products on a CPU want all in one piece
        is_joined = keys.requires_grad or keys.device.type == "cpu"
        self._own = self._joined(keys, values) if is_joined else self._stored(keys, values)
        self.length = end
        return self._own

    def _joined(self, keys: Tensor, values: Tensor) -> KeysValues:
        if self._own is None:
            return keys, values
        old_keys, old_values = self._own
        return torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)

    def _stored(self, keys: Tensor, values: Tensor) -> KeysValues:
        if self._store is None:
            rows, heads, _, head_dim = keys.shape
            room = self.max_tokens - self.length
            self._store = keys.new_empty(2, rows, heads, room, head_dim)
        start = 0 if self._own is None else self._own[0].shape[2]
        end = start + keys.shape[2]
        self._store[0, :, :, start:end] = keys
        self._store[1, :, :, start:end] = values
        return self._store[0, :, :, :end], self._store[1, :, :, :end]


def cached(
    keys: Tensor, values: Tensor, cache: KVCache | None
) -> tuple[Tensor, Tensor, KeysValues | None]:
    """Add new tokens to a cache, if there is one; returns all own tokens, and the shared past."""
    if cache is None:
        return keys, values, None
    return *cache.append(keys, values), cache.past


@dataclass(frozen=True)
class Past:
    """Keys and values of what was observed of B problems, computed once and never written to.

    Attributes:
        layers: one pair per attention layer; None in each where nothing was observed.
    """

    layers: tuple[KeysValues | None, ...]

    @property
    def length(self) -> int:
        """How many tokens were observed."""
        return 0 if self.layers[0] is None else self.layers[0][0].shape[2]

    def __getitem__(self, problems: slice) -> "Past":
        """The past of some problems, a view."""
        parts = (pair and (pair[0][problems], pair[1][problems]) for pair in self.layers)
        return Past(tuple(parts))

    def caches(self, *, max_tokens: int, copies: int) -> list[KVCache]:
        """Begin B * copies rollouts from here: one cache per layer."""
        return [KVCache(pair, max_tokens=max_tokens, copies=copies) for pair in self.layers]
