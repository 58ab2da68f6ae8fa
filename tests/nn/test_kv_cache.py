"""The key/value cache: what goes in comes out, shared by copies, and never more than fits."""

import pytest
import torch

from vjepa_wm.nn.kv_cache import KVCache


def prefix(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values (2, 3, length, 4)."""
    keys = torch.arange(2 * 3 * length * 4, dtype=torch.float32).view(2, 3, length, 4)
    return keys, -keys


def test_tokens_come_back_in_order() -> None:
    keys, values = prefix(5)
    cache = KVCache(keys[:, :, :2], values[:, :, :2], max_tokens=5)
    assert cache.length == 2
    for start, end in ((2, 3), (3, 5)):
        step = slice(start, end)
        all_keys, all_values = cache.append(keys[:, :, step], values[:, :, step])
        assert torch.equal(all_keys, keys[:, :, :end])
        assert torch.equal(all_values, values[:, :, :end])
        assert cache.length == end


def test_copies_stand_next_to_their_problem() -> None:
    """Rows 0 to 2 are copies of problem 0, rows 3 to 5 of problem 1, as candidates are laid out."""
    keys, values = prefix(2)
    cache = KVCache(keys, values, max_tokens=3, copies=3)
    new = torch.randn(6, 3, 1, 4)
    all_keys, all_values = cache.append(new, new)
    for row in range(6):
        assert torch.equal(all_keys[row, :, :2], keys[row // 3])
        assert torch.equal(all_values[row, :, :2], values[row // 3])
    assert torch.equal(all_keys[:, :, 2:], new)


def test_overflow_names_both_numbers() -> None:
    """And leaves the cache as it was."""
    keys, values = prefix(3)
    cache = KVCache(keys, values, max_tokens=4)
    with pytest.raises(ValueError, match="holds 4 tokens, 5 were wanted"):
        cache.append(keys[:, :, :2], values[:, :, :2])
    assert cache.length == 3


def test_an_empty_past() -> None:
    keys, values = prefix(0)
    cache = KVCache(keys, values, max_tokens=2, copies=2)
    all_keys, _ = cache.append(torch.ones(4, 3, 2, 4), torch.ones(4, 3, 2, 4))
    assert all_keys.shape == (4, 3, 2, 4)
