"""Twins of clips are equal but for their event, and each event does what its name says."""

import dataclasses

import gymnasium
import numpy as np
import pytest

from envs.impossible import COVERED_FRAMES, ELSEWHERE, EVENTS, Twins
from envs.play.env import PlayEnv
from envs.play.impossible import HAPPENINGS, LEAST_JUMP, MISSING, _hide

BEFORE, AFTER = 4, 3
FREE = 7  # numbers of the position of a thing that hangs on nothing; its joint comes first


def make(**options: object) -> PlayEnv:
    options = {"image_size": 32, "shadow_share": 0.0, **options}
    env = gymnasium.make("envs:vjepa_wm/Play-v0", disable_env_checker=True, **options)
    return env.unwrapped


def tell(event: str, *, seed: int = 0, **options: object) -> Twins:
    """Make the first twins there are from a seed on."""
    env = make(**options)
    for number in range(60):
        twins = env.make_twins(event, seed=[seed, number], before=BEFORE, after=AFTER)
        if twins is not None:
            return twins
    raise AssertionError(f"{event} happens in none of 60 clips")


def main_object(film) -> np.ndarray:
    """Positions of the main object in every frame (T, 3)."""
    return film.sim_state[:, :3]


@pytest.mark.parametrize("event", HAPPENINGS)
def test_twins_differ_from_the_event_on_and_not_before(event: str) -> None:
    twins = tell(event)
    assert twins.frame == BEFORE
    assert twins.covered == (COVERED_FRAMES if "hidden" in event else 0)
    assert twins.actions.shape == (BEFORE + AFTER - 1, 0)
    for one, other in zip(twins.possible, twins.impossible, strict=True):
        assert len(one) == len(other) == BEFORE + AFTER
        assert np.array_equal(one[:BEFORE], other[:BEFORE])
    seen = [film.pixels[BEFORE:].astype(int) for film in (twins.possible, twins.impossible)]
    assert (np.abs(seen[0] - seen[1]).max() > 20) == (event != "nothing")
    if event == "nothing":
        assert np.array_equal(twins.possible.sim_state, twins.impossible.sim_state)
    again = tell(event)
    assert np.array_equal(again.impossible.pixels, twins.impossible.pixels)


def test_the_possible_twin_is_the_clip_as_it_is_watched() -> None:
    env = make()
    twins = env.make_twins("nothing", seed=3, before=BEFORE, after=AFTER)
    seed = int(np.random.default_rng(3).integers(2**63))
    env._clip = env._draw_clip(seed, HAPPENINGS["nothing"].kinds)
    shown = []
    for frame in range(env.num_frames):
        env._frame = frame
        shown.append(env._observe()["pixels"])
    first = next(
        frame
        for frame in range(env.num_frames)
        if np.array_equal(shown[frame], twins.possible.pixels[0])
    )
    assert np.array_equal(shown[first : first + BEFORE + AFTER], twins.possible.pixels)
    assert env._clip.truth.scene.kind in HAPPENINGS["nothing"].kinds


def test_what_hovers_stops_in_the_air_where_it_would_have_fallen() -> None:
    for seed in range(4):
        twins = tell("hovers", seed=seed)
        stays, falls = (main_object(film) for film in (twins.impossible, twins.possible))
        assert np.ptp(stays[BEFORE - 1 :], axis=0).max() < 0.01
        assert falls[BEFORE - 1, 2] - falls[BEFORE, 2] > 0.05


def test_what_passes_through_another_leaves_it_alone() -> None:
    twins = tell("passes_through")
    for film, moves in ((twins.possible, True), (twins.impossible, False)):
        other = film.sim_state[BEFORE - 1 :, FREE : FREE + 3]
        assert (np.ptp(other, axis=0).max() > 0.01) == moves
    heights = main_object(twins.impossible)[:, 2]
    assert np.ptp(heights) < 0.05, "it fell through the floor as well"


def test_what_turns_back_goes_where_it_came_from() -> None:
    twins = tell("turns_back")
    goes_back, goes_on = (
        np.diff(main_object(film)[:, :2], axis=0) for film in (twins.impossible, twins.possible)
    )
    came = goes_on[BEFORE - 2]
    assert came @ goes_back[BEFORE - 1] < 0 < came @ goes_on[BEFORE - 1]


@pytest.mark.parametrize("event", ["teleports", "teleports_hidden"])
def test_what_teleports_is_elsewhere_in_the_picture(event: str) -> None:
    twins = tell(event)
    moved = main_object(twins.impossible)[BEFORE] - main_object(twins.possible)[BEFORE]
    assert np.linalg.norm(moved) > LEAST_JUMP  # pictures are more than a metre wide


@pytest.mark.parametrize("event", ["changes_colour", "changes_shape", "changes_shape_hidden"])
def test_what_only_looks_different_moves_as_before(event: str) -> None:
    twins = tell(event)
    assert np.array_equal(twins.possible.sim_state, twins.impossible.sim_state)


@pytest.mark.parametrize("shadow_share", [0.0, 1.0])
def test_what_vanishes_leaves_the_picture_as_it_is_without_it(shadow_share: float) -> None:
    """As if the object were far below the floor, shadow and all."""
    env = make(shadow_share=shadow_share)
    clip = env._draw_clip(1, ["roll"])
    motion, frames = clip.truth.motion, range(3, 4)
    far = dataclasses.replace(motion, qpos=motion.qpos - np.eye(motion.qpos.shape[1])[2] * 1e3)
    there, elsewhere = (
        env._film(clip.model, one, clip.truth, frames).pixels for one in (motion, far)
    )
    _hide(clip.model, clip.truth.scene)
    gone = env._film(clip.model, motion, clip.truth, frames).pixels
    assert np.array_equal(gone, elsewhere) and not np.array_equal(gone, there)


def test_twins_leave_the_episode_that_runs_alone() -> None:
    env = make()

    def watch() -> list[np.ndarray]:
        return [env.step(np.zeros(0, np.float32))[0]["pixels"] for _ in range(3)]

    env.reset(seed=5)
    wanted = watch()
    env.reset(seed=5)
    env.make_twins("vanishes", seed=0, before=BEFORE, after=AFTER)
    assert np.array_equal(watch(), wanted)


@pytest.mark.parametrize("covered", ["vanishes_hidden", "changes_shape_hidden"])
def test_a_plate_hides_the_object_in_both_and_is_gone_again(covered: str) -> None:
    twins = tell(covered)
    plain = tell(covered.removesuffix("_hidden"))
    hidden = slice(BEFORE - COVERED_FRAMES, BEFORE)
    for film in (twins.possible, twins.impossible):
        plates = (film.pixels == 120).all(axis=-1).sum(axis=(1, 2))
        assert plates[hidden].min() > 16 and plates[[0, BEFORE]].max() < plates[hidden].min()
    assert np.array_equal(twins.possible.pixels[BEFORE:], plain.possible.pixels[BEFORE:])


def test_every_event_of_the_other_environments_is_here_or_said_to_be_missing() -> None:
    assert set(EVENTS) == (set(HAPPENINGS) | set(MISSING)) - set(ELSEWHERE)
    assert set(make().events) == set(HAPPENINGS)
    assert set(make(kinds=["roll"]).events) == set(HAPPENINGS) - {"hovers", "passes_through"}


@pytest.mark.parametrize(
    ("event", "options", "said"),
    [
        ("stays", {}, "what is heavy enough stays"),
        ("flies", {}, "it is unknown"),
        ("hovers", {"before": 0}, "more than 0 frames before it"),
        ("hovers", {"before": 30}, "at most 32 in all"),
        ("vanishes_hidden", {"before": 2}, "more than 2 frames before it"),
        ("hovers", {"frame_skip": 2}, "frame_skip must be 1"),
    ],
)
def test_what_cannot_be_told_is_refused(event: str, options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make().make_twins(event, **{"seed": 0, "before": 4, "after": 3, **options})
