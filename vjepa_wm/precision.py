"""Chooses the number format of matrix products: bfloat16 where the machine has it."""

import torch

from vjepa_wm.errors import SettingError


def has_native_bf16(device: str | torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively; on a CPU that is AVX512-BF16 or AMX."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported()
    return kind == "cpu" and torch.cpu._is_avx512_bf16_supported()


def resolve_dtype(precision: str, device: str | torch.device) -> torch.dtype:
    """Resolve `auto`, `bf16` or `fp32` to a dtype for a device.

    Raises:
        SettingError: another word.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise SettingError(f"precision must be auto, bf16 or fp32, got {precision!r}")
    if precision == "bf16" or (precision == "auto" and has_native_bf16(device)):
        return torch.bfloat16
    return torch.float32
