"""How much of a GPU's memory one use of it may take."""

import torch

SHARE = 0.25  # of what is free


def spare_bytes(device: torch.device | str) -> float:
    """Bytes that one use may take of a CUDA GPU's memory, as it is now."""
    return SHARE * torch.cuda.mem_get_info(device)[0]
