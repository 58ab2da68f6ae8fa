"""Keys and values of the frames already seen, so that a step computes only its own tokens."""

import torch
from torch import Tensor


class KVCache:
    """Pre-allocated keys and values of one attention layer, (B, heads, max_tokens, head_dim).

    Args:
        keys: (B, heads, L, head_dim) keys of a prefix, possibly L = 0.
        values: the same for the values.
        max_tokens: how many tokens fit.
        copies: every row of the prefix is repeated this often: the observed past is computed once
            for a problem and then shared by its candidates.
    """

    def __init__(self, keys: Tensor, values: Tensor, *, max_tokens: int, copies: int = 1) -> None:
        batch, heads, length, head_dim = keys.shape
        shape = (2, batch * copies, heads, max_tokens, head_dim)
        self.store = torch.empty(shape, dtype=keys.dtype, device=keys.device)
        self.length = length
        self.max_tokens = max_tokens
        for slot, prefix in enumerate((keys, values)):
            self.store[slot, :, :, :length] = prefix.repeat_interleave(copies, dim=0)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the tokens of one step and return the keys and values of all tokens so far."""
        end = self.length + keys.shape[2]
        if end > self.max_tokens:
            raise ValueError(f"the cache holds {self.max_tokens} tokens, {end} were wanted")
        if keys.requires_grad:  # autograd needs the old store as it was: make a new one
            old = self.store[:, :, :, : self.length]
            self.store = torch.cat([old, torch.stack([keys, values])], dim=3)
            self.length = end
            return self.store[0], self.store[1]
        self.store[0, :, :, self.length : end] = keys
        self.store[1, :, :, self.length : end] = values
        self.length = end
        return self.store[0, :, :, :end], self.store[1, :, :, :end]
