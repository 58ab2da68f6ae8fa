"""Drawing: cost of the profiles, several environments and processes, errors without GL."""

import multiprocessing
import threading
import time
from collections.abc import Callable

import gymnasium
import mujoco
import numpy as np
import pytest

import envs
from envs import gl, rendering
from envs.push import PushEnv
from envs.reacher import ReacherEnv


def _first_picture(env_id: str) -> np.ndarray:
    return gymnasium.make(env_id).reset(seed=0)[0]["pixels"]


def _send_first_picture(connection) -> None:  # noqa: ANN001 - the type is private
    connection.send(_first_picture(envs.ENV_IDS[0]))


def _cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    function()
    begin = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - begin) / repeats


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_fast_profile_is_much_cheaper_than_mujocos_default(env_id: str) -> None:
    env = gymnasium.make(env_id).unwrapped
    env.reset(seed=0)
    default = mujoco.Renderer(rendering.load_model(env.scene), 64, 64)

    def draw_default() -> np.ndarray:
        default.update_scene(env._data, camera=rendering.CAMERA)
        return default.render()

    def draw_fast() -> np.ndarray:
        return rendering.render(env._data, scene=env.scene, size=64, profile="fast")

    assert _cpu_seconds(draw_default, 8) > 20 * _cpu_seconds(draw_fast, 100)
    default.close()


def test_closing_one_env_leaves_the_others_picture() -> None:
    kept, other = ReacherEnv(), PushEnv()
    before, _ = kept.reset(seed=0)
    other.reset(seed=0)
    other.close()
    del other
    after, _ = kept.reset(seed=0)
    assert np.array_equal(before["pixels"], after["pixels"])
    assert after["pixels"].any()


def test_motion_below_a_pixel_shows() -> None:
    env = PushEnv()
    env.reset(seed=0, options={"goal": None})
    state = env.get_sim_state()
    pictures = []
    for step in range(5):
        state[1] += 0.002 * min(step, 1)  # metres; a pixel is 10 mm
        pictures.append(env.reset(options={"start": state, "goal": None})[0]["pixels"])
    changes = [not np.array_equal(a, b) for a, b in zip(pictures, pictures[1:], strict=False)]
    assert sum(changes) >= 2


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_draw_the_same_picture(method: str) -> None:
    picture = _first_picture(envs.ENV_IDS[0])  # the parent has drawn before the worker starts
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_send_first_picture, args=(sender,))
    worker.start()
    try:
        assert receiver.poll(20), "the worker drew nothing"
        assert np.array_equal(receiver.recv(), picture)
        worker.join(5)
        assert worker.exitcode == 0
    finally:
        worker.kill()


def test_threads_draw_the_same_picture() -> None:
    pictures = [_first_picture(envs.ENV_IDS[0])]
    threads = [
        threading.Thread(target=lambda: pictures.append(_first_picture(envs.ENV_IDS[0])))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pictures) == 3
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)


@pytest.fixture
def no_screen(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pretend to be on a Linux machine without a screen where MUJOCO_GL is unset."""
    monkeypatch.setattr(gl.sys, "platform", "linux")
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ({"libEGL.so.1", "libGL.so.1", "libOSMesa.so.8"}, "egl"),
        ({"libEGL.so.1", "libOSMesa.so.8"}, "osmesa"),
        ({"libOSMesa.so.6"}, "osmesa"),
        ({"libEGL.so.1"}, None),
    ],
)
def test_backend_follows_the_installed_libraries(
    no_screen: pytest.MonkeyPatch, present: set[str], wanted: str | None
) -> None:
    def load(name: str) -> None:
        if name not in present:
            raise OSError(name)

    no_screen.setattr(gl.ctypes, "CDLL", load)
    assert gl.choose_backend() == wanted
    no_screen.setenv("MUJOCO_GL", "glfw")
    assert gl.choose_backend() is None
    no_screen.delenv("MUJOCO_GL")
    no_screen.setenv("DISPLAY", ":0")
    assert gl.choose_backend() is None


def test_missing_gl_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    monkeypatch.setattr(mujoco, "Renderer", fail)
    env = ReacherEnv(image_size=24)  # a size not drawn before
    with pytest.raises(RuntimeError, match="apt-get install -y libegl1 libgl1"):
        env.reset(seed=0)


def test_too_large_a_picture_is_not_blamed_on_gl() -> None:
    env = ReacherEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="framebuffer"):
        env.draw(size=4096, profile="pretty")
