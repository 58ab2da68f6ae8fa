"""A corpus as trajectories: read by pretraining as it is, probed by what is kept beside it."""

from pathlib import Path

import numpy as np
import pytest

from vjepa_wm.data.collection import CollectSettings, collect
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.data.truth import Truth
from vjepa_wm.errors import DataError, UnknownNameError
from vjepa_wm.pretraining.clips import ClipSteps
from vjepa_wm.pretraining.sources import TrajectorySource
from vjepa_wm.probing.episodes import labelled_clips
from vjepa_wm.probing.states import draw_clips

OPTIONS = {"num_frames": 24, "fps": 12.0, "kinds": ["slide", "swing"], "shadow_share": 0.0}
EPISODES = 24


def settings(**changes: object) -> CollectSettings:
    """Return those of a small corpus, with some changed."""
    given = {
        "env_id": "envs:vjepa_wm/Play-v0",
        "image_size": 16,
        "episodes": EPISODES,
        "steps": 23,
        "shard_episodes": 12,
        "env_options": OPTIONS,
    }
    return CollectSettings(**(given | changes))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Trajectories:
    folder = tmp_path_factory.mktemp("corpus") / "play"
    collect(settings(), folder)
    return Trajectories.open(folder)


def test_pretraining_reads_it_as_it_is(corpus: Trajectories) -> None:
    assert corpus.meta.action_dim == corpus.meta.proprio_dim == 0
    assert corpus.lengths.tolist() == [24] * EPISODES and corpus.meta.fps == 12
    source = TrajectorySource(corpus, num_frames=4, steps=ClipSteps([0, 1, 3]))
    clips = source.draw(np.random.default_rng(0), 6)
    assert [source.read(clip)[0].shape for clip in clips] == [(4, 16, 16, 3)] * 6
    assert source.validation_frames(1).shape == (1, 24, 16, 16, 3)
    batch = corpus.windows(4, stride=2).sample(np.random.default_rng(0), 5)
    assert batch.actions.shape == (5, 3, 0)


def test_truth_tells_classes_and_counts(corpus: Trajectories) -> None:
    truth = Truth.read(corpus.folder)
    assert truth.settings["physics_step_s"] * truth.settings["physics_steps_per_frame"] * 12 == (
        pytest.approx(1)
    )
    counts = truth.counts(corpus)
    assert all(sum(own.values()) == EPISODES for own in counts.values())
    assert counts["event"]["slide"] + counts["event"]["swing"] == EPISODES
    for episode, told in enumerate(truth.classes_of(corpus, "shape").tolist()):
        states = corpus.episode(episode).sim_state
        assert (states[:, truth.labels["shape"]["column"]] == told).all()
    with pytest.raises(UnknownNameError, match="Did you mean 'direction'"):
        truth.classes("directon")


def test_labels_are_probed_on_held_out_episodes(corpus: Trajectories) -> None:
    clips, labels, splits = labelled_clips(
        corpus, "event", num_frames=8, fps=None, validation_share=0.2, seed=0
    )
    assert labels.classes == ("slide", "swing") and len(clips) == EPISODES
    assert splits.test.tolist() == corpus.split()[1].tolist()
    rows = np.concatenate(splits)
    assert sorted(rows.tolist()) == list(range(EPISODES))
    assert (np.diff(clips.frames) == 3).all() and (clips.frames[:, 0] % 24 == 1).all()
    pixels, _ = clips.read(np.array([5]))
    assert np.array_equal(pixels[0], corpus.episode(5).pixels[1:23:3])
    slow = labelled_clips(corpus, "event", num_frames=4, fps=6, validation_share=0.2, seed=0)[0]
    assert (np.diff(slow.frames) == 2).all()


def test_states_are_probed_by_what_the_folder_says(corpus: Trajectories) -> None:
    _, labels, _ = draw_clips(
        corpus,
        clips=60,
        num_frames=4,
        fps=None,
        validation_share=0.2,
        test_share=0.2,
        seed=0,
    )
    names = [target.name for target in labels.targets.all]
    assert names[0] == "object_place_widths" and "object_visible_share" in names
    values = labels.targets.values(labels.sim_state)
    assert values.shape[1] == labels.num_outputs == 7
    assert np.abs(values[:, :2]).max() <= 1


def test_what_cannot_be_told_is_refused(corpus: Trajectories, tmp_path: Path) -> None:
    options = {"num_frames": 8, "fps": None, "validation_share": 0.2, "seed": 0}
    with pytest.raises(UnknownNameError, match="Did you mean 'event'"):
        labelled_clips(corpus, "events", **options)
    with pytest.raises(DataError, match="no episode lasts for a clip of 40 frames"):
        labelled_clips(corpus, "event", **{**options, "num_frames": 40})
    collect(settings(episodes=2), tmp_path / "few")
    with pytest.raises(DataError, match="collect more"):
        labelled_clips(Trajectories.open(tmp_path / "few"), "event", **options)
    (tmp_path / "few" / "truth.json").unlink()
    with pytest.raises(DataError, match="keeps no labels"):
        labelled_clips(Trajectories.open(tmp_path / "few"), "event", **options)


def test_corpora_of_other_settings_are_not_mixed(corpus: Trajectories) -> None:
    changed = settings(env_options={**OPTIONS, "shadow_share": 0.5})
    with pytest.raises(DataError, match=r"shadow_share: wanted 0.5, it has 0.0"):
        collect(changed, corpus.folder)
    misspelt = settings(env_options={**OPTIONS, "kinds": ["slid"]})
    with pytest.raises(DataError, match="Did you mean 'slide'"):
        collect(misspelt, corpus.folder)
    assert collect(settings(), corpus.folder).frames == 0


def test_classes_that_cannot_be_trained_are_named(
    corpus: Trajectories, monkeypatch, caplog
) -> None:
    """The only clip of a class is not trained on: it is left out, and a warning says so."""
    options = {"num_frames": 4, "fps": None, "validation_share": 0.2, "seed": 0}
    alone = labelled_clips(corpus, "event", **options)[2].validation[0]
    classes = Truth.classes_of

    def with_one_fall(self: Truth, trajectories: Trajectories, label: str) -> np.ndarray:
        told = classes(self, trajectories, label).copy()
        told[alone] = self.classes(label).index("fall")
        return told

    monkeypatch.setattr(Truth, "classes_of", with_one_fall)
    _, labels, splits = labelled_clips(corpus, "event", **options)
    assert labels.classes == ("slide", "swing")
    assert alone not in np.concatenate(splits) and len(splits.validation) == 3
    assert "event: left out, no clip to train on has them: fall (1 clips)" in caplog.text
