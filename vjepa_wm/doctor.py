"""Say what this machine has and how fast it is: python -m vjepa_wm.doctor (or make doctor)."""

import argparse
import os
import platform
import sys
import time
from importlib import metadata

import gymnasium
import torch

from vjepa_wm.precision import has_native_bf16
from vjepa_wm.preflight import GL_ADVICE, GL_PACKAGES

PACKAGES = ("torch", "mujoco", "gymnasium", "hydra-core", "numpy")
ENV_ID = "vjepa_wm/Reacher-v0"
IMAGE_SIZE = 64
NUM_FRAMES = 100
MATRIX_SIZE = 1024


def versions() -> dict[str, str]:
    """Return the versions of what results depend on; "missing" for what is not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing: make setup"
    return found


def devices() -> dict[str, str]:
    """Describe the CPU and the accelerators torch can use."""
    found = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads"}
    names = [
        f"{torch.cuda.get_device_name(index)}, "
        f"{torch.cuda.get_device_properties(index).total_memory / 2**30:.0f} GiB"
        for index in range(torch.cuda.device_count())
    ]
    found["cuda"] = "; ".join(names) or "no"
    found["mps"] = "yes" if torch.backends.mps.is_available() else "no"
    return found


def matmul_gflops(dtype: torch.dtype, *, repeats: int = 5) -> float:
    """Return the CPU's best rate on a square matrix product, in GFLOP/s."""
    matrix = torch.ones(MATRIX_SIZE, MATRIX_SIZE, dtype=dtype)
    matrix @ matrix  # the first product chooses the kernel
    best_s = float("inf")
    for _ in range(repeats):
        start_s = time.perf_counter()
        matrix @ matrix
        best_s = min(best_s, time.perf_counter() - start_s)
    return 2 * MATRIX_SIZE**3 / best_s / 1e9


def matmul_summary() -> str:
    """Compare float32 with bfloat16 on the CPU."""
    single, half = matmul_gflops(torch.float32), matmul_gflops(torch.bfloat16)
    native = "native" if has_native_bf16("cpu") else "not native, so float32 is used"
    return f"float32 {single:.0f}, bfloat16 {half:.0f} GFLOP/s ({half / single:.1f}x; {native})"


def frame_ms() -> tuple[float, float]:
    """Draw frames of an environment in its fast profile.

    Returns:
        Milliseconds until the first frame, which includes opening OpenGL, and per further step
        (physics and one picture).
    """
    import envs  # noqa: F401  registers the environments and chooses the OpenGL backend

    start_s = time.perf_counter()
    env = gymnasium.make(ENV_ID, image_size=IMAGE_SIZE, profile="fast")
    env.reset(seed=0)
    first_ms = (time.perf_counter() - start_s) * 1e3
    action = env.action_space.sample() * 0
    start_s = time.perf_counter()
    for _ in range(NUM_FRAMES):
        env.unwrapped.step(action)  # without the wrapper that ends the episode
    per_frame_ms = (time.perf_counter() - start_s) * 1e3 / NUM_FRAMES
    env.close()
    return first_ms, per_frame_ms


def rendering_summary() -> tuple[str, bool]:
    """Try to draw; return what came of it and whether it worked."""
    try:
        first_ms, per_frame_ms = frame_ms()
    except Exception as error:  # whatever it is, saying it clearly is the purpose here
        message = f"FAILED, so no environment can be used: {type(error).__name__}: {error}"
        # MuJoCo's own errors do not name the cure.
        return message if GL_PACKAGES[0] in message else f"{message}\n{GL_ADVICE}", False
    backend = os.environ.get("MUJOCO_GL") or "MuJoCo's default"
    return (
        f"{backend}: {per_frame_ms:.2f} ms per {IMAGE_SIZE} px step with picture "
        f"({1e3 / per_frame_ms:.0f} per second), first one {first_ms:.0f} ms",
        True,
    )


def main() -> None:
    """Print the report; exit with 1 when environments cannot be drawn."""
    rendering, can_render = rendering_summary()
    report = {
        "system": f"{platform.system()} {platform.machine()}",
        **versions(),
        **devices(),
        "matrix product": matmul_summary(),
        "rendering": rendering,
    }
    for name, value in report.items():
        print(f"{name:<15} {value}")
    sys.exit(0 if can_render else 1)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help, and no other options
    main()
