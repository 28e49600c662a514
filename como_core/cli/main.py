"""`como`: finds the verb, hands it the rest of the command line, and turns errors that a user can mend into one line.

Verbs are imported only when they are called, so that help comes at once. A verb's function is its own help: the
signature gives the options, the docstring what they do (tyro). Heavy imports (torch, mujoco) belong inside it.
"""

from __future__ import annotations

import difflib
import errno
import functools
import importlib
import importlib.util
import inspect
import io
import re
import sys
import typing
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from como_core import __version__
from como_core.bounds import Bounds
from como_core.errors import ComoError

Verb = tuple[str, ...]

EXIT_MENDABLE = 2
EXIT_INTERRUPTED = 130

# Conditions of the disk that the user mends; any other OSError is a defect of ours and keeps its traceback.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Command:
    """One verb: where its function is and the line that `como --help` shows.

    `takes_argv` functions get the raw arguments as one list instead of options made from their signature: launch
    arguments are `name:=value`.
    """

    target: str
    summary: str
    takes_argv: bool = False

    @property
    def module(self) -> str:
        return self.target.partition(":")[0]

    def exists(self) -> bool:
        """Whether the verb's module is installed; one that is not is not listed."""
        return importlib.util.find_spec(self.module) is not None

    def function(self) -> Callable[..., Any]:
        return getattr(importlib.import_module(self.module), self.target.partition(":")[2])


COMMANDS: dict[Verb, Command] = {
    ("doctor",): Command(
        "como_core.cli.doctor:doctor", "what this machine has: torch, ROS 2, GL, codecs, disk; how to mend what lacks"),
    ("demo",): Command(
        "como_core.cli.demo:demo", "the whole way in simulation over real ROS 2, from video to a moving arm"),
    ("motion", "train"): Command(
        "como_core.cli.motion:train", "learn latent motion from videos and bags; no action labels needed"),
    ("motion", "eval"): Command(
        "como_core.cli.motion:evaluate", "probe a motion model beside baselines, and audit it for leaks; any video"),
    ("motion", "show"): Command(
        "como_core.cli.motion:show", "see what a motion model has learned: pictures of it in one HTML page"),
    ("relabel",): Command(
        "como_core.cli.relabel:relabel", "write pseudo-actions and their confidence beside videos and bags"),
    ("policy", "train"): Command(
        "como_core.cli.policy:train", "train a policy on a few demonstrations and any relabelled video"),
    ("policy", "eval"): Command(
        "como_core.cli.policy_eval:evaluate", "measure a policy's success in simulation; compare it with another's"),
    ("policy", "show"): Command(
        "como_core.cli.policy_show:show", "see what a policy does: planned ways in trials, chunks over recordings"),
    ("data", "recover"): Command(
        "como_core.cli.data:recover", "save what is left of recordings that a crash cut off; originals stay"),
    ("data", "label"): Command(
        "como_core.cli.data:label", "say whether a recorded episode was a success"),
    ("interface", "check"): Command(
        "como_core.cli.interface:check", "read a robot's interface file, and compare it with the running graph"),
    ("bench",): Command(
        "como_core.cli.bench:bench", "speed and memory on this machine, against limits measured in the same run"),
    ("launch",): Command(
        "como_core.cli.launch:launch", "start nodes as `ros2 launch como_ros` does: policy, sim or record, name:=value",
        takes_argv=True),
}

EXAMPLES = {
    ("doctor",): "como doctor",
    ("demo",): "como demo",
    ("motion", "train"): "como motion train --data videos/ -o runs/motion",
    ("motion", "eval"): "como motion eval runs/motion --data held_out/",
    ("motion", "show"): "como motion show runs/motion --data videos/ bags/ -o runs/motion/show",
    ("relabel",): "como relabel videos/ --model runs/motion -o relabeled/",
    ("policy", "train"): "como policy train --demos bags/ --videos relabeled/ -o runs/policy",
    ("policy", "eval"): "como policy eval runs/policy --env metaworld:drawer-open-v3 --trials 50",
    ("policy", "show"): "como policy show runs/policy --env metaworld:drawer-open-v3 -o pictures/",
    ("data", "recover"): "como data recover bags/",
    ("data", "label"): "como data label bags/ episode_0003 success",
    ("interface", "check"): "como interface check config/interfaces/ur5e.yaml --live",
    ("bench",): "como bench motion -o bench_motion.json",
    ("launch",): "como launch sim env:=metaworld:drawer-open-v3",
}


_OPTION = re.compile(r"--|-[A-Za-z]$")  # a negative number is none


def main(argv: Sequence[str] | None = None) -> int:
    """Run `como` on `argv` (default: the command line) and return its exit code.

    0 done, 2 something the user can mend (said in one line), 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8
    try:
        return _run(words)
    except ComoError as error:
        print(f"como: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        print(f"como: {error.filename or 'output'}: {error.strerror}; free the disk, mend the rights or choose "
              "another folder", file=sys.stderr)
    except KeyboardInterrupt:
        print("como: interrupted; run the same command again to resume", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_MENDABLE


def commands() -> dict[Verb, Command]:
    """The verbs that this installation has, in the order in which they are used."""
    return {verb: command for verb, command in COMMANDS.items() if command.exists()}


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"como {__version__}")
        return 0
    known = commands()
    verb = next((v for v in known if tuple(words[:len(v)]) == v), None)
    if verb is None:
        return _help_or_refuse(words, known)
    command, rest = known[verb], words[len(verb):]
    function = command.function()
    if command.takes_argv:
        return int(function(rest) or 0)
    import tyro  # not needed for `como --help`, which so comes at once

    result = tyro.cli(_within_bounds(function), args=_gathered(rest, _of_several_values(function)),
                      prog=" ".join(("como", *verb)), description=_description(function),
                      config=(tyro.conf.FlagCreatePairsOff,))
    return int(result or 0)


def _gathered(words: Sequence[str], several: Collection[str]) -> list[str]:
    """The values of an option of `several` that is given again behind its first: `--data a --data b` is `--data a b`.

    Of any option tyro takes the last and says nothing of the others, which suits only one that has a single value.
    """
    options: dict[str, list[str]] = {}  # name, or place where the last counts -> the option and its values
    current = options.setdefault("", [])
    for place, word in enumerate(words):
        if not _OPTION.match(word):
            current.append(word)
            continue
        name, sign, value = word.partition("=")
        key = name.lstrip("-").replace("_", "-")
        current = options.setdefault(key if key in several else f"{place} {key}", [name])
        current += [value] if sign else []
    return [word for found in options.values() for word in found]


def _of_several_values(function: Callable[..., Any]) -> set[str]:
    """Names of the options of a verb that take any number of values."""
    found = set()
    for parameter, kind, extras in _hints(function):
        if typing.get_origin(kind) is list or typing.get_args(kind)[-1:] == (Ellipsis,):
            name = next((extra.name for extra in extras if getattr(extra, "name", None)), parameter)
            found.add(name.replace("_", "-"))
    return found


def _within_bounds(function: Callable[..., Any]) -> Callable[..., Any]:
    """The verb, which refuses a number out of the Bounds that its signature gives: `trials: Annotated[int, COUNT]`."""
    bounds = {name: extra for name, _, extras in _hints(function) for extra in extras if isinstance(extra, Bounds)}

    @functools.wraps(function)
    def checked(*values: Any, **options: Any) -> Any:
        given = inspect.signature(function).bind(*values, **options).arguments
        for name, bound in bounds.items():
            expected = bound.expected(given.get(name))
            if expected:
                raise ComoError(f"--{name.replace('_', '-')} must be {expected}, got {given[name]}")
        return function(*values, **options)

    return checked


def _hints(function: Callable[..., Any]) -> list[tuple[str, Any, list[Any]]]:
    """Each parameter's name and type, and what else its annotation says."""
    found = []
    for name, hint in typing.get_type_hints(function, include_extras=True).items():
        kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        found.append((name, kind, extras))
    return found


def _description(function: Callable[..., Any]) -> str:
    """A verb's docstring up to its `Args:`, which tyro shows beside the options; tyro alone would drop the examples."""
    return (inspect.getdoc(function) or "").partition("\nArgs:")[0].strip()


def _help_or_refuse(words: list[str], known: dict[Verb, Command]) -> int:
    """Help for `como` or for a group such as `como motion`; ComoError for a verb that is not there."""
    group = tuple(words[:1]) if any(v[:1] == tuple(words[:1]) for v in known) else ()
    rest = words[len(group):]
    if not rest or rest[0] in ("-h", "--help", "help"):
        print(_help(group, known))
        return 0
    given = " ".join((*group, rest[0]))
    names = [" ".join(v) for v in known]
    if rest[0].startswith("-"):
        raise ComoError(f"unknown option {rest[0]!r} before a verb; verbs: {', '.join(names)}")
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    hint = f"did you mean `como {close[0]}`?" if close else f"verbs: {', '.join(names)}"
    raise ComoError(f"no verb {given!r}; {hint}")


def _help(group: Verb, known: dict[Verb, Command]) -> str:
    shown = {" ".join(verb): (verb, command) for verb, command in known.items() if verb[:len(group)] == group}
    width = max(len(name) for name in shown)
    lines = [" ".join(("usage: como", *group, "<verb> [options]")), "",
             "From raw video to a moving arm: latent motion, pseudo-actions, a co-trained policy, ROS 2.", ""]
    lines += [f"  {name:<{width}}  {command.summary}" for name, (_, command) in shown.items()]
    lines += ["", "Examples:", *(f"  {EXAMPLES[verb]}" for verb, _ in shown.values() if verb in EXAMPLES)]
    return "\n".join([*lines, "", "Every verb explains itself: como <verb> --help"])


if __name__ == "__main__":
    sys.exit(main())
