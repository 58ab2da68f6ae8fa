"""The key/value cache: what goes in comes out, the past is shared, and never more than fits."""

import pytest
import torch

from vjepa_wm.nn.kv_cache import KVCache, Past


def prefix(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values (2, 3, length, 4)."""
    keys = torch.arange(2 * 3 * length * 4, dtype=torch.float32).view(2, 3, length, 4)
    return keys, -keys


def test_tokens_come_back_in_order() -> None:
    """The past is left where it is; what was added comes back, all of it."""
    keys, values = prefix(5)
    past = (keys[:, :, :2], values[:, :, :2])
    cache = KVCache(past, max_tokens=5)
    assert cache.length == 2 and cache.past is past
    for start, end in ((2, 3), (3, 5)):
        step = slice(start, end)
        own_keys, own_values = cache.append(keys[:, :, step], values[:, :, step])
        assert torch.equal(own_keys, keys[:, :, 2:end])
        assert torch.equal(own_values, values[:, :, 2:end])
        assert cache.length == end


def test_room_is_made_once_on_a_gpu() -> None:
    """Its store, filled here on a CPU: the same tokens in order, in one piece of memory."""
    keys, values = prefix(5)
    cache = KVCache(max_tokens=5)
    for start, end in ((0, 2), (2, 3), (3, 5)):
        step = slice(start, end)
        cache._own = cache._stored(keys[:, :, step], values[:, :, step])
        assert all(map(torch.equal, cache._own, (keys[:, :, :end], values[:, :, :end])))
        assert cache._own[0].data_ptr() == cache._store.data_ptr()


def test_candidates_share_one_past() -> None:
    """In memory too, however many there are, and for some of the problems as for all."""
    keys, values = prefix(2)
    past = Past(((keys, values),))
    (cache,) = past[1:].caches(max_tokens=3, copies=1000)
    assert cache.past[0].data_ptr() == keys[1].data_ptr() and len(cache.past[0]) == 1
    assert cache.past[1].data_ptr() == values[1].data_ptr()
    before = keys.clone()
    new = torch.randn(1000, 3, 1, 4)
    own_keys, _ = cache.append(new, new)
    assert torch.equal(own_keys, new) and torch.equal(keys, before)


def test_overflow_names_both_numbers() -> None:
    """And leaves the cache as it was."""
    cache = KVCache(prefix(3), max_tokens=4)
    keys, values = prefix(2)
    with pytest.raises(ValueError, match="holds 4 tokens, 5 were wanted"):
        cache.append(keys, values)
    assert cache.length == 3
    assert cache.append(keys[:, :, :1], values[:, :, :1])[0].shape[2] == 1


def test_an_empty_past() -> None:
    past = Past((None, None))
    assert past.length == past[:1].length == 0
    cache, _ = past.caches(max_tokens=2, copies=2)
    own_keys, _ = cache.append(torch.ones(4, 3, 2, 4), torch.ones(4, 3, 2, 4))
    assert own_keys.shape == (4, 3, 2, 4) and cache.past is None


def test_gradients_reach_the_keys_of_every_step() -> None:
    keys, values = prefix(1)
    cache = KVCache(max_tokens=2)
    steps = [torch.randn_like(keys).requires_grad_() for _ in range(2)]
    for step in steps:
        own_keys, own_values = cache.append(step, values)
    gradients = torch.autograd.grad((own_keys * own_keys).sum() + own_values.sum(), steps)
    for step, gradient in zip(steps, gradients, strict=True):
        torch.testing.assert_close(gradient, 2 * step)
