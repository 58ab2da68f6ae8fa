"""Clips of random scenes: the ground truth is true, and the seed alone decides."""

import colorsys
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs.play import env as play
from envs.play.events import DIRECTIONS, LABELS, NEVER, SHOWN_SHARE
from envs.play.layout import columns
from envs.play.looks import HUES, SHAPES, TEXTURES, make_shape, paint
from envs.play.scenes import KINDS
from envs.play.simulation import UnstableError
from envs.play.truth import place_state

# As envs chose its OpenGL; mujoco imported before envs would choose another.
mujoco = play.mujoco

CLIPS = 3  # of each kind


def film(seed: int, **options: object) -> tuple[np.ndarray, np.ndarray, play.PlayEnv]:
    """Return pixels (T,H,W,3), ground truth (T,S) and the environment of one clip."""
    env = gymnasium.make("envs:vjepa_wm/Play-v0", disable_env_checker=True, **options).unwrapped
    obs, _ = env.reset(seed=seed)
    pixels, truth, is_over = [obs["pixels"]], [env.get_sim_state()], False
    while not is_over:
        obs, _, _, is_over, _ = env.step(np.zeros(0, np.float32))
        pixels.append(obs["pixels"])
        truth.append(env.get_sim_state())
    env.close()
    return np.stack(pixels), np.stack(truth), env


@pytest.fixture(scope="module")
def clips() -> dict[str, list[dict[str, np.ndarray]]]:
    """Return some clips of every kind: name -> column values by name, pixels among them."""
    found = {}
    for kind in KINDS:
        own = []
        for seed in range(CLIPS):
            pixels, truth, env = film(seed, kinds=[kind], image_size=32, shadow_share=0.0)
            values = {name: truth[:, where] for name, where in columns().items()}
            own.append({**values, "pixels": pixels, "env": env})
        found[kind] = own
    return found


def label(clip: dict[str, np.ndarray], name: str) -> str:
    return LABELS[name][0][int(clip[f"label_{name}"][0, 0])]


def when(clip: dict[str, np.ndarray], event: str) -> int:
    """Return the frame in which an event happens."""
    time_s = clip[f"{event}_s"][0, 0]
    assert time_s != NEVER
    return int(np.abs(clip["time_s"][:, 0] - time_s).argmin())


def test_the_seed_decides_every_bit() -> None:
    first, again, other = (film(seed, image_size=16) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    for shadows in (0.0, 1.0):
        assert film(5, image_size=16, shadow_share=shadows)[0].shape == (32, 16, 16, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_something_happens_and_is_labelled(clips, kind: str) -> None:
    for clip in clips[kind]:
        assert np.isfinite(clip["time_s"]).all()
        assert label(clip, "event") == kind
        assert (clip["pixels"][0] != clip["pixels"][-1]).any()
        assert 25 < clip["pixels"].mean() < 235, "too dark or too bright"
        assert clip["pixels"].std(axis=(1, 2)).mean() > 6, "nothing to see"
        assert clip["object0_visible_share"].max() > SHOWN_SHARE


def test_velocities_are_what_positions_do(clips) -> None:
    """Between two frames that touch nothing new, the mean velocity is the way over the time."""
    moved, told = [], []
    for clip in (clip for kind in ("roll", "slide", "swing", "arm") for clip in clips[kind]):
        place, velocity = clip["object0_position_m"], clip["object0_velocity_m_s"]
        moved.append(np.diff(place, axis=0) / np.diff(clip["time_s"], axis=0))
        told.append((velocity[1:] + velocity[:-1]) / 2)
    moved, told = np.concatenate(moved), np.concatenate(told)
    assert np.corrcoef(moved.ravel(), told.ravel())[0, 1] > 0.97


def test_what_falls_gets_lower_until_it_lands(clips) -> None:
    for clip in clips["fall"]:
        height, landed = clip["object0_position_m"][:, 2], when(clip, "lands")
        top = height.argmax()
        assert top < landed
        assert (np.diff(height[top : landed - 1]) <= 1e-6).all()
        assert height[0] - height[-1] > 0.35


def test_what_rolls_turns_and_what_slides_stays_upright(clips) -> None:
    def turned(clip: dict[str, np.ndarray]) -> float:
        return float(np.linalg.norm(clip["object0_turning_rad_s"][:, :2], axis=1).mean())

    assert min(map(turned, clips["roll"])) > 5 * max(map(turned, clips["slide"]))


def test_what_is_run_into_moves_only_then(clips) -> None:
    for clip in clips["collide"]:
        hit = when(clip, "touches")
        others = [clip[f"object{index}_position_m"] for index in (1, 2, 3)]
        before = max(np.abs(place[: hit - 1] - place[0]).max() for place in others)
        after = max(np.abs(place[-1] - place[0]).max() for place in others)
        assert before < 0.03 < 0.05 < after


def test_behind_a_screen_less_is_seen(clips) -> None:
    for clip in clips["occlude"]:
        seen = clip["object0_visible_share"][:, 0]
        hidden, shown = when(clip, "hides"), when(clip, "shows_again")
        assert seen[:hidden].max() > SHOWN_SHARE > seen[hidden]
        assert hidden < shown and seen[shown] > SHOWN_SHARE


def test_the_visible_share_is_that_of_the_pixels(clips) -> None:
    """Rays find what drawing the object's pixels alone, and among everything, finds."""
    rays, pixels = [], []
    for kind in ("occlude", "arm", "fall"):
        for clip in clips[kind]:
            model, truth, _ = clip["env"]._shown()
            data = mujoco.MjData(model)
            model.vis.global_.offwidth = model.vis.global_.offheight = 128
            with mujoco.Renderer(model, 128, 128) as renderer:
                renderer.enable_segmentation_rendering()
                for frame in range(0, 32, 4):
                    view = truth.views[frame]
                    model.cam_pos[0], model.cam_quat[0] = view.position, view.quaternion
                    place_state(model, data, truth.motion, frame)
                    mujoco.mj_camlight(model, data)
                    if np.abs(truth.places[frame, 0]).max() > 0.35:
                        continue  # its outline may leave the picture, which pixels do not show
                    rays.append(truth.visible[frame, 0])
                    pixels.append(share_by_pixels(renderer, model, data))
    rays, pixels = np.array(rays), np.array(pixels)
    assert len(rays) > 30 and pixels.min() < 0.2 < 0.9 < pixels.max()
    assert np.abs(rays - pixels).mean() < 0.04 and np.abs(rays - pixels).max() < 0.3


def share_by_pixels(renderer: Any, model: Any, data: Any) -> float:
    """Return the pixels of the main object among everything, over those of it alone."""
    option = mujoco.MjvOption()
    counts = []
    for groups in ([0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]):
        option.geomgroup[:] = groups
        renderer.update_scene(data, camera="view", scene_option=option)
        ids, types = np.moveaxis(renderer.render(), -1, 0)
        is_geom = (types == int(mujoco.mjtObj.mjOBJ_GEOM)) & (ids >= 0)
        counts.append(int((is_geom & (model.geom_group[ids.clip(0)] == 2)).sum()))
    return counts[1] / max(counts[0], 1)


def test_direction_is_where_it_goes_in_the_picture(clips) -> None:
    steps = {"right": (0, 1), "left": (0, -1), "up": (1, 1), "down": (1, -1)}
    assert set(steps) == set(DIRECTIONS)
    for kind in ("roll", "slide", "fall", "occlude"):
        for clip in clips[kind]:
            if label(clip, "camera") == "moving":
                continue
            axis, sign = steps[label(clip, "direction")]
            flow = clip["object0_flow_widths_s"][:, axis]
            assert sign * flow[np.abs(flow).argmax()] > 0


def test_the_main_object_is_of_the_colour_told() -> None:
    """Of plain objects: the strongest colour of the picture has the hue of the label."""
    hits = 0
    for seed in range(8):
        pixels, truth, _ = film(seed, kinds=["slide"], image_size=64, shadow_share=0.0)
        colour = list(HUES)[int(truth[0, columns()["label_colour"][0]])]
        x, y = truth[0, columns()["object0_place_widths"]]
        row, column = int(64 * (0.5 - y)), int(64 * (0.5 + x))
        patch = pixels[0, row - 3 : row + 4, column - 3 : column + 4].reshape(-1, 3) / 255
        hues = [colorsys.rgb_to_hsv(*pixel) for pixel in patch]
        strongest = max(hues, key=lambda hsv: hsv[1] * hsv[2])
        off = (360 * strongest[0] - HUES[colour] + 180) % 360 - 180
        hits += abs(off) < 16
    assert hits >= 6


def test_shapes_and_textures_are_as_big_as_they_say() -> None:
    rng = np.random.default_rng(0)
    for name in SHAPES:
        shape = make_shape(name, 0.2, rng)
        assert shape.name == name and 0.15 < shape.radius < 0.4
        assert shape.flat_height or shape.rolling_radius
    pictures = {name: paint(name, np.array([1.0, 0.2, 0.2]), rng) for name in TEXTURES}
    assert all(picture.shape == (32, 32, 3) for picture in pictures.values())
    assert pictures["plain"].std(axis=(0, 1)).max() == 0
    assert all(pictures[name].std() > 10 for name in TEXTURES if name != "plain")


def test_scenes_that_are_not_sane_are_thrown_away_and_counted(monkeypatch) -> None:
    simulate, calls = play.simulate, []

    def unstable_at_first(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) < 3:
            raise UnstableError("as wanted")
        return simulate(*args, **options)

    monkeypatch.setattr(play, "simulate", unstable_at_first)
    _, truth, _ = film(0, image_size=16, kinds=["swing"])
    assert truth[0, columns()["redraws"][0]] >= 2
    monkeypatch.setattr(play, "MAX_REDRAWS", 1)
    calls.clear()
    with pytest.raises(RuntimeError, match="None of 1 scenes of the kind 'swing'"):
        film(0, image_size=16, kinds=["swing"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["rol"]}, "Did you mean 'roll'"),
        ({"kinds": []}, "kinds is empty"),
        ({"num_frames": 3}, "num_frames of 8 or more"),
        ({"shadow_share": 2.0}, "from 0 to 1"),
        ({"render_mode": "human"}, "render_mode"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        play.PlayEnv(**options)


def test_it_is_watched_and_not_acted_in() -> None:
    env = play.PlayEnv(image_size=16, num_frames=24, kinds=["swing"], render_mode="rgb_array")
    assert env.action_space.shape == (0,)
    with pytest.raises(RuntimeError, match="reset first"):
        env.get_sim_state()
    obs, _ = env.reset(seed=1)
    assert env.observation_space.contains(obs)
    assert np.array_equal(env.render(), obs["pixels"])
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        env.step(np.zeros(2))
    for _ in range(23):
        *_, is_over, _ = env.step(np.zeros(0))
    assert is_over
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(0))
    env.close()
