"""Chooses the number format of matrix products: bfloat16 where the machine has it."""

import torch

from vjepa_wm.errors import SettingError


def check_device(device: str | torch.device) -> torch.device:
    """Return the device of this name.

    Raises:
        SettingError: there is no such device here; the message names those there are.
    """
    found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    message = f"no device '{device}' here, wanted one of: {', '.join(found)}"
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SettingError(message) from error
    # Without an index the first is meant; on "meta" parameters are counted, not computed with
    if _place(wanted) not in {_place(torch.device(name)) for name in (*found, "meta")}:
        raise SettingError(message)
    return wanted


def _place(device: torch.device) -> tuple[str, int]:
    return device.type, device.index or 0


def has_native_bf16(device: str | torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively; on a CPU that is AVX512-BF16 or AMX."""
    kind = check_device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported()
    return kind == "cpu" and torch.cpu._is_avx512_bf16_supported()


def resolve_dtype(precision: str, device: str | torch.device) -> torch.dtype:
    """Resolve `auto`, `bf16` or `fp32` to a dtype for a device.

    Raises:
        SettingError: another word, or no such device.
    """
    check_device(device)
    if precision not in ("auto", "bf16", "fp32"):
        raise SettingError(f"precision must be auto, bf16 or fp32, got {precision!r}")
    if precision == "bf16" or (precision == "auto" and has_native_bf16(device)):
        return torch.bfloat16
    return torch.float32
