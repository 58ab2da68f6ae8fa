"""render and collect: pictures and recorded trajectories."""

import statistics
import tempfile
import time
from pathlib import Path

import gymnasium

from vjepa_wm.benchmarks.figures import Figure
from vjepa_wm.data.collection import CollectSettings, collect


def benchmark_render(env_id: str, *, image_size: int, frames: int) -> list[Figure]:
    """CPU milliseconds per picture: the fast profile beside MuJoCo's default quality."""
    milliseconds = {profile: [] for profile in ("fast", "pretty")}
    env = gymnasium.make(env_id).unwrapped
    env.reset(seed=0)
    for _ in range(frames):
        for profile in milliseconds:
            start = time.process_time()
            env.draw(size=image_size, profile=profile)
            milliseconds[profile].append(1e3 * (time.process_time() - start))
    env.close()
    fast, default = (statistics.median(milliseconds[name]) for name in ("fast", "pretty"))
    return [Figure(f"fast picture, {image_size} px", fast, "cpu-ms", "MuJoCo's default", default)]


def benchmark_collect(settings: CollectSettings) -> list[Figure]:
    """Recorded frames per second of two workers beside one, start of the workers included."""
    rates = {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            result = collect(settings, Path(folder) / "data", workers=workers)
        rates[workers] = result.frames / result.seconds
    return [Figure("recorded, 2 workers", rates[2], "frames/s", "1 worker", rates[1])]
