"""What all verbs share: Hydra, option checking, error messages and help."""

import functools
import inspect
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vjepa_wm.errors import UnknownNameError, VjepaWmError
from vjepa_wm.progress import progress

__all__ = ["check_overrides", "help_text", "progress", "verb"]

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
GLOBAL_PACKAGE = "# @package _global_"  # first line of configs that set keys of the others


def verb(
    config_name: str, *, words: str | None = None, file: str | None = None
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a program of a function that takes a config.

    Options are checked before Hydra starts: a misspelt one ends the program with exit code 2 and
    names the nearest that exists. A `VjepaWmError` prints one line, without a traceback.

    Args:
        config_name: The verb's file in ``configs/``, without suffix.
        words: Option, a list, that takes plain words: ``verb a b`` is ``verb words=[a,b]``. None
            has no such option.
        file: Option that takes a path given alone: ``verb a.gif`` is ``verb file=a.gif``. None has
            no such option.
    """

    def decorate(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def task(cfg: DictConfig) -> None:
            _run(function, cfg)

        program = hydra.main(
            version_base="1.3", config_path="pkg://configs", config_name=config_name
        )

        @functools.wraps(function)
        def main() -> None:
            if words is not None:
                sys.argv[1:] = _words_to_option(sys.argv[1:], words)
            if file is not None:
                sys.argv[1:] = _file_to_option(sys.argv[1:], file)
            arguments, unknown = get_args_parser().parse_known_args(sys.argv[1:])
            if unknown:
                _fail(f"unknown flag {unknown[0]}; options are written key=value, see --help")
            if arguments.help:
                _show(help_text(config_name, function.__doc__ or ""))
                return
            if arguments.config_name is None and arguments.config_path is None:
                overrides = arguments.overrides
                added = _stand_ins(config_name, overrides, arguments.config_dir)
                if added:  # beside the others: flags may stand before or behind them
                    place = sys.argv.index(overrides[0])
                    sys.argv[place:place] = added
                    overrides = [*added, *overrides]
                try:
                    checked = check_overrides(
                        config_name,
                        overrides,
                        config_dir=arguments.config_dir,
                        is_multirun=arguments.multirun,
                    )
                except VjepaWmError as error:
                    _fail(str(error))
                instead = dict(zip(overrides, checked, strict=True))
                sys.argv[1:] = [instead.get(argument, argument) for argument in sys.argv[1:]]
            program(task)()

        return main

    return decorate


# What is taken where a group follows another one, "${env}", and has no option of that name
STAND_INS = {"planner": "icem"}


def _stand_ins(config_name: str, overrides: list[str], config_dir: str | None) -> list[str]:
    """Return options for groups that have none of the name they follow, as of one's own env."""
    configs = resources.files("configs")
    text = (configs / f"{config_name}.yaml").read_text(encoding="utf-8")
    given = dict(option.split("=", 1) for option in overrides if "=" in option)
    folders = [configs, *([Path(config_dir)] if config_dir else [])]
    added = []
    for entry in _defaults(text):
        group, option = next(iter(entry.items())) if isinstance(entry, dict) else (entry, "")
        followed = re.fullmatch(r"\$\{(.+)\}", f"{option}")
        if followed is None or group in given or followed[1] not in given:
            continue
        file = f"{given[followed[1]]}.yaml"
        is_own = any((folder / followed[1] / file).is_file() for folder in folders)
        if is_own and not any((folder / group / file).is_file() for folder in folders):
            added.append(f"{group}={STAND_INS[group]}")
    return added


def _file_to_option(arguments: list[str], option: str) -> list[str]:
    """Make an option of the first argument that is none, if it comes before any flag."""
    for place, given in enumerate(arguments[: _first_flag(arguments)]):
        if "=" not in given and not given.startswith("~"):
            quoted = given.replace("'", r"\'")
            return [*arguments[:place], f"{option}='{quoted}'", *arguments[place + 1 :]]
    return arguments


def _first_flag(arguments: list[str]) -> int:
    return next((i for i, given in enumerate(arguments) if given.startswith("-")), len(arguments))


def _words_to_option(arguments: list[str], option: str) -> list[str]:
    """Gather arguments that are plain words, before any flag, into one option."""
    flags = _first_flag(arguments)
    words = [given for given in arguments[:flags] if given.isidentifier()]
    others = [given for given in arguments[:flags] if not given.isidentifier()]
    gathered = [f"{option}=[{','.join(words)}]"] if words else []
    return gathered + others + arguments[flags:]


def run_verb(name: str, *options: str, threads: int | None = None, log: Path | None = None) -> None:
    """Run another verb in a process of its own, as a user would, and say how long it took.

    Args:
        name: The verb.
        options: What follows it on the command line.
        threads: Cores it may use; None leaves that to it.
        log: File its output is added to, for verbs that run side by side; None shows it.

    Raises:
        VjepaWmError: If it fails.
    """
    command = [sys.executable, "-m", f"vjepa_wm.{name}", *options]
    line = f"$ python -m vjepa_wm.{name} {' '.join(options)}"
    print(f"\n{line}" if log is None else f"{line}  # shown in {log}", flush=True)
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    start = time.perf_counter()
    with open(log, "a") if log is not None else nullcontext() as file:
        code = subprocess.run(command, env=environment, stdout=file, stderr=file).returncode
    if code:
        seen = "" if log is None else f" (see {log})"
        raise VjepaWmError(
            f"{name} ended with exit code {code}{seen}; run the same command to continue"
        )
    print(f"# {name}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


def config_of(name: str, *options: str) -> DictConfig:
    """Return the config another verb gets from such options, without running it."""
    with _configs():
        return hydra.compose(name, overrides=list(options))


def env_options(env: Mapping[str, Any]) -> list[str]:
    """What another verb is told of an environment: its name, and what is not as its file says.

    Args:
        env: Options of the config group `env`.
    """
    file = resources.files("configs") / "env" / f"{env['name']}.yaml"
    known = OmegaConf.create(file.read_text(encoding="utf-8")) if file.is_file() else {}
    named = [f"env={env['name']}"] if known else []
    changed = [key for key in env if key not in known or env[key] != known[key]]
    return [*named, *(f"env.{key}={env[key]}" for key in changed)]


def _run(function: Callable[[DictConfig], None], cfg: DictConfig) -> None:
    """Run a verb, turning its errors into messages and exit codes."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("vjepa_wm").setLevel(logging.INFO)
    try:
        _check_device(cfg)
        function(cfg)
    except VjepaWmError as error:
        _fail(str(error))
    except InstantiationException as error:
        reason = reason_of(error)
        if reason is None:
            raise
        _fail(reason)
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def reason_of(error: InstantiationException) -> str | None:
    """Return what a part said of its options, which Hydra wraps; None if it broke otherwise."""
    is_told = isinstance(error.__cause__, VjepaWmError | ValueError)
    return str(error.__cause__) if is_told else None


def _check_device(cfg: DictConfig) -> None:
    """Refuse a device that is not there before anything is done."""
    if "device" in cfg:
        from vjepa_wm.precision import check_device  # loads torch, which not every verb needs

        check_device(cfg.device)


def _show(text: str) -> None:
    """Print, also to what does not read to the end, such as `head`."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> None:
    """Print an error and end the program."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_USAGE)


def check_overrides(
    config_name: str,
    overrides: list[str],
    *,
    config_dir: str | None = None,
    is_multirun: bool = False,
) -> list[str]:
    """Check command-line options against the configs.

    Args:
        config_name: The verb's file in ``configs/``, without suffix.
        overrides: Options as written, ``key=value``.
        config_dir: A further folder of configs, searched too.
        is_multirun: Whether a value may be several, separated by commas.

    Returns:
        The options; a single value where a list is wanted is a list of one.

    Raises:
        UnknownNameError: If a key or a group's option does not exist.
        VjepaWmError: If an option cannot be read or has an impossible value.
    """
    path = [f"hydra.searchpath=[file://{config_dir}]"] if config_dir else []
    with _configs():
        try:
            parsed = OverridesParser.create().parse_overrides(overrides)
            groups = [override for override in parsed if _is_group(override)]
            for override in groups:
                _check_choice(override, has_searchpath=bool(path))
            chosen = [_single(override) for override in groups]
            cfg = hydra.compose(config_name, overrides=path + chosen, return_hydra_config=True)
            known = _keys(cfg)
            for override in parsed:
                _check_key(override, known)
                _check_type(override, cfg)
            checked = [_as_list(override, cfg) for override in parsed]
            if not is_multirun:
                hydra.compose(config_name, overrides=path + checked)
            return checked
        except (HydraException, OmegaConfBaseException) as error:
            raise VjepaWmError(str(error).strip()) from error


@contextmanager
def _configs() -> Iterator[None]:
    """Open the configs to Hydra, also from within a verb, which runs under Hydra already."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module("configs", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def _loader() -> "hydra._internal.config_loader_impl.ConfigLoaderImpl":
    return GlobalHydra.instance().config_loader()


def _is_group(override: Override) -> bool:
    return bool(_loader().get_group_options(override.key_or_group))


def _values(override: Override) -> list[str]:
    """Return the choices of a group's override, several in a sweep."""
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_iterator()]
    value = override.value()
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _single(override: Override) -> str:
    """Return the override with the first of its choices."""
    if not override.is_sweep_override():
        return override.input_line
    return f"{override.get_key_element()}={_values(override)[0]}"


def _check_choice(override: Override, *, has_searchpath: bool) -> None:
    """Refuse an option that its group does not have."""
    group = override.key_or_group
    known = _loader().get_group_options(group)
    for value in _values(override):
        # A folder of the user's own may have more options than the package has.
        if value not in known and value != "None" and not has_searchpath:
            raise UnknownNameError(f"option of '{group}'", value, known)


def _check_key(override: Override, known: set[str]) -> None:
    """Refuse a key that the config does not have, unless it is added with ``+``."""
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or _is_group(override):
        return
    if key in known or any(key.startswith(f"{name}.") for name in known if name.endswith("}")):
        return
    shown = {name for name in known if not name.startswith("hydra")}
    raise UnknownNameError("option", key, shown if not key.startswith("hydra.") else known)


def _check_type(override: Override, cfg: DictConfig) -> None:
    """Refuse a value of another type than the config's own; null always means "off"."""
    if override.is_delete() or override.is_sweep_override() or _is_group(override):
        return
    default = OmegaConf.select(cfg, override.key_or_group, throw_on_missing=False)
    value = override.value()
    allowed = {bool: (bool,), int: (int,), float: (int, float)}
    if type(default) not in allowed or value is None or isinstance(value, QuotedString):
        return
    is_reference = isinstance(value, str) and "${" in value
    if type(value) not in allowed[type(default)] and not is_reference:
        wanted = type(default).__name__
        raise VjepaWmError(f"{override.key_or_group}: wanted a value of type {wanted}, got {value}")


def _as_list(override: Override, cfg: DictConfig) -> str:
    """Return an override as it was written, a single value of a list in brackets."""
    line = override.input_line
    if override.is_delete() or override.is_sweep_override() or _is_group(override):
        return line
    default = OmegaConf.select(cfg, override.key_or_group, throw_on_missing=False)
    value = override.value()
    is_reference = isinstance(value, str) and "${" in value
    is_single = not (isinstance(value, list) or value is None or is_reference)
    if not isinstance(default, ListConfig) or not is_single:
        return line
    key, _, written = line.partition("=")
    return f"{key}=[{written}]"


def _keys(cfg: DictConfig, prefix: str = "") -> set[str]:
    """Return all keys of a config, with the dotted ones of its parts."""
    keys = set()
    for name in cfg:
        keys.add(f"{prefix}{name}")
        node = cfg._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            keys |= _keys(node, f"{prefix}{name}.")
    return keys


def help_text(config_name: str, summary: str) -> str:
    """Return a verb's help: its config files with their comments, group by group.

    Args:
        config_name: The verb's file in ``configs/``, without suffix.
        summary: What the verb does.
    """
    folder = resources.files("configs")
    text = (folder / f"{config_name}.yaml").read_text(encoding="utf-8")
    defaults = [entry for entry in _defaults(text) if isinstance(entry, dict)]
    chosen = {choice: option for entry in defaults for choice, option in entry.items()}
    parts = [inspect.cleandoc(summary), f"Options, written key=value (configs/{config_name}.yaml):"]
    parts.append(_indented(_without_defaults(text)))
    for choice, option in chosen.items():
        # "trainer@metric_trainer" is an option of the group trainer, put into metric_trainer.
        group, _, package = choice.partition("@")
        if "hydra" in group or not (folder / group).is_dir():
            continue
        names = sorted(
            path.name.removesuffix(".yaml")
            for path in (folder / group).iterdir()
            if path.name.endswith(".yaml")
        )
        # "${env}" is an option of the name that was chosen for env
        followed = re.fullmatch(r"\$\{(.+)\}", f"{option}")
        default = chosen[followed[1]] if followed else f"{option}"
        of_what = f"that of {followed[1]}, " if followed else ""
        head = f"{choice}=  one of: {', '.join(names)}; default {of_what}{default}. "
        bodies = {
            name: (folder / group / f"{name}.yaml").read_text(encoding="utf-8") for name in names
        }
        if any(GLOBAL_PACKAGE in body for body in bodies.values()):
            parts.append(f"{head}Each sets some options of the others.")
            continue
        parts.append(f"{head}Its options, written {package or group}.key=value:")
        if default in names:
            based_on = [base for base in _defaults(bodies[default]) if base in names]
            options = [_without_defaults(bodies[name]) for name in (default, *based_on)]
            parts.append(_indented("\n".join(options)))
    parts.append("Flags: --help, --cfg job (show the config), -m (sweep over a=1,2), --config-dir")
    return "\n\n".join(parts)


def _defaults(text: str) -> list[str | dict[str, str]]:
    """Return the ``defaults`` list of a config file, as it is written."""
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False).pop("defaults", [])


def _without_defaults(text: str) -> str:
    """Drop the ``defaults`` list and package lines of a config file, which no option changes."""
    text = re.sub(r"(?m)^defaults:\n(?:[ -].*\n)*", "", text)
    return re.sub(r"(?m)^# @package.*\n", "", text).strip()


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
