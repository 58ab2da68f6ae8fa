"""Every verb refuses what it does not know, naming the nearest that exists."""

import re
from pathlib import Path

import pytest
from omegaconf import DictConfig

from vjepa_wm.cli import (
    _file_to_option,
    _stand_ins,
    _words_to_option,
    check_overrides,
    env_options,
    help_text,
    verb,
)
from vjepa_wm.errors import DataError, UnknownNameError, VjepaWmError
from vjepa_wm.files import atomic_path, digest, read_json, write_json

CONFIGS = Path(__file__).parents[1] / "configs"
VERBS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "hydra_defaults")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epsodes=3", "unknown option 'epsodes'. Did you mean 'episodes'"),
        ("env.frameskip=3", "unknown option 'env.frameskip'. Did you mean 'env.frame_skip'"),
        ("env=pus", "unknown option of 'env' 'pus'. Did you mean 'push'"),
        ("~stesp", "unknown option 'stesp'. Did you mean 'steps'"),
        ("hydra.sweep.dri=x", "Did you mean 'hydra.sweep.dir'"),
    ],
)
def test_misspelt_options_name_the_nearest(override: str, message: str) -> None:
    """Keys, keys of a group, and a group's options."""
    with pytest.raises(UnknownNameError, match=re.escape(message)):
        check_overrides("collect", ["env=reacher", override][override.startswith("env=") :])


@pytest.mark.parametrize("override", ["steps=abc", "steps=1.5", "steps=true", "steps", "out=["])
def test_impossible_values_are_refused(override: str) -> None:
    """Text where a number belongs, and what cannot be read at all."""
    with pytest.raises(VjepaWmError):
        check_overrides("collect", [override])


@pytest.mark.parametrize(
    "overrides",
    [["steps=3", "env=push_t"], ["workers=2"], ["workers=null"], ["+mine=1"], ["out=7"]],
)
def test_good_options_pass(overrides: list[str]) -> None:
    """Also an added key, and a number where null is the default."""
    check_overrides("collect", overrides)


def test_other_verbs_are_told_what_is_not_as_the_environments_file_says() -> None:
    """By its name alone where it is one of the package; all of it where it is somebody's own."""
    push = {"name": "push", "id": "envs:vjepa_wm/Push-v0", "image_size": 64, "frame_skip": 2}
    assert env_options(push) == ["env=push"]
    assert env_options(push | {"frame_skip": 4}) == ["env=push", "env.frame_skip=4"]
    own = {"name": "my_robot", "id": "mine:my/Robot-v0", "image_size": 32, "frame_skip": 1}
    told = env_options(own)
    assert told == [f"env.{name}={value}" for name, value in own.items()]
    check_overrides("evaluate", told)


def test_an_environment_of_ones_own_needs_no_planner_of_its_name(tmp_path: Path) -> None:
    """A file of its options is enough; one for the planner is taken where there is one."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "mine.yaml").write_text("name: mine\nid: a:b-v0\nimage_size: 8\n")
    folder = str(tmp_path)
    assert _stand_ins("evaluate", ["env=mine"], folder) == ["planner=icem"]
    check_overrides("evaluate", ["planner=icem", "env=mine"], config_dir=folder)
    for given in (["env=mine", "planner=cem"], ["env=push"], ["env=typo"], ["episodes=3"]):
        assert _stand_ins("evaluate", given, folder) == []
    assert _stand_ins("collect", ["env=mine"], folder) == []
    (tmp_path / "planner").mkdir()
    (tmp_path / "planner" / "mine.yaml").write_text("defaults: [cem]\n")
    assert _stand_ins("evaluate", ["env=mine"], folder) == []


@pytest.mark.parametrize("is_first", [True, False], ids=["flags first", "flags last"])
def test_what_stands_in_is_added_wherever_flags_stand(
    is_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line on, to what the verb is given."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "mine.yaml").write_text("name: mine\nid: a:b-v0\nimage_size: 8\n")
    flags, options = ["--config-dir", str(tmp_path)], ["env=mine", "episodes=3"]
    monkeypatch.setattr("sys.argv", ["x", *(flags + options if is_first else options + flags)])
    given: list[DictConfig] = []
    verb("evaluate")(given.append)()
    assert (given[0].planner._target_, given[0].episodes) == ("planners.ICEM", 3)


def test_sweeps_are_checked_choice_by_choice() -> None:
    """One misspelt choice among several is found before the first job starts."""
    check_overrides("collect", ["env=push,reacher", "seed=1,2"], is_multirun=True)
    with pytest.raises(UnknownNameError, match="reacher"):
        check_overrides("collect", ["env=push,raecher"], is_multirun=True)
    with pytest.raises(VjepaWmError):
        check_overrides("collect", ["seed=1,2"])


def _failing(cfg: DictConfig) -> None:
    """Do nothing well."""
    raise DataError(f"cannot do {cfg.steps} steps")


def _interrupted(cfg: DictConfig) -> None:
    """Stop."""
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("function", "arguments", "code", "said"),
    [
        (_failing, ["steps=7"], 2, "error: cannot do 7 steps"),
        (_failing, ["stesp=7"], 2, "Did you mean 'steps'"),
        (_failing, ["--hlep"], 2, "unknown flag --hlep"),
        (_interrupted, [], 130, "run the same command again to continue"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    function, arguments: list[str], code: int, said: str, monkeypatch, capsys, tmp_path: Path
) -> None:
    """No traceback, and no files where the program ran."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["verb", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        verb("collect")(function)()
    captured = capsys.readouterr()
    assert exit_info.value.code == code
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", VERBS)
def test_every_option_of_every_verb_is_explained(name: str) -> None:
    """A comment stands above each key of the config and of its groups."""
    files = [CONFIGS / f"{name}.yaml", *CONFIGS.glob("*/*.yaml")]
    for path in files:
        lines = path.read_text().split("\n")
        for number, line in enumerate(lines):
            if re.match(r"[a-z]\w*:", line) and not line.startswith("defaults:"):
                assert lines[number - 1].startswith("#"), f"{path}: {line} has no comment"
    assert "defaults:" not in help_text(name, "")


def test_help_lists_keys_and_choices(monkeypatch, capsys) -> None:
    """The docstring, each key with its comment, each group with its options."""
    monkeypatch.setattr("sys.argv", ["verb", "--help"])
    verb("collect")(_failing)()
    shown = capsys.readouterr().out
    assert shown.startswith("Do nothing well.")
    assert "# Recorded steps per episode" in shown
    assert "one of: play, push, push_t, reacher, two_rooms; default push" in shown


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """Neither half a file nor a temporary one stays."""
    path = tmp_path / "deep" / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_truncated_json_is_named(tmp_path: Path) -> None:
    """With its size, which tells a cut file from a wrong one."""
    path = tmp_path / "value.json"
    path.write_text('{"a": 1, "b"')
    with pytest.raises(DataError, match="value.json is not valid JSON .* 12 bytes"):
        read_json(path)
    with pytest.raises(DataError, match="does not exist"):
        read_json(tmp_path / "other.json")


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    """Read in blocks or at once."""
    raw = bytes(range(256)) * 10_000
    (tmp_path / "raw").write_bytes(raw)
    assert digest(tmp_path / "raw") == digest(raw) != digest(raw[:-1])


def test_long_lists_of_known_names_are_shortened() -> None:
    """The nearest stay."""
    error = UnknownNameError("thing", "name_50x", [f"name_{number}" for number in range(100)])
    assert "Did you mean 'name_50'" in str(error)
    assert "90 others" in str(error)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["a", "b"], ["what=[a,b]"]),
        (["env=x", "a", "out=y", "b"], ["what=[a,b]", "env=x", "out=y"]),
        (["a", "--config-name", "b"], ["what=[a]", "--config-name", "b"]),
        (["env=x"], ["env=x"]),
    ],
)
def test_plain_words_may_stand_anywhere_before_flags(given: list[str], read: list[str]) -> None:
    assert _words_to_option(given, "what") == read


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["fps=5", "it's a film.gif"], ["fps=5", r"video='it\'s a film.gif'"]),
        (["a.gif", "b.gif"], ["video='a.gif'", "b.gif"]),  # the second is refused later
        (["env=push", "~x"], ["env=push", "~x"]),
        (["--cfg", "job"], ["--cfg", "job"]),
    ],
)
def test_a_path_given_alone_is_an_option(given: list[str], read: list[str]) -> None:
    assert _file_to_option(given, "video") == read


@pytest.mark.parametrize(
    ("verb_name", "given", "read"),
    [
        ("pretrain", "data=videos", "data=[videos]"),
        ("pretrain", "data=[a,b]", "data=[a,b]"),
        ("pretrain", "strides=1", "strides=[1]"),
        ("probe", "percents=100", "percents=[100]"),
        ("probe", "beside='my run'", "beside=['my run']"),
        ("collect", "episodes=3", "episodes=3"),
        ("compare_encoders", "encoders=${encoder}", "encoders=${encoder}"),
    ],
)
def test_a_single_value_of_a_list_is_a_list_of_one(verb_name: str, given: str, read: str) -> None:
    assert check_overrides(verb_name, [given], is_multirun=True) == [read]


def test_a_single_value_reaches_the_verb_as_a_list(monkeypatch) -> None:
    seen = []

    @verb("probe")
    def program(cfg: DictConfig) -> None:
        seen.append(list(cfg.percents))

    monkeypatch.setattr("sys.argv", ["program", "percents=100"])
    program()
    assert seen == [[100]]
