"""`como` as it is typed: help that teaches, verbs that exist, errors in one line, exit codes for scripts."""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import subprocess
import sys
import time
import types
import typing
from collections.abc import Callable
from pathlib import Path

import pytest

from como_core.cli import main as cli
from como_core.errors import ComoError


def install_verb(monkeypatch: pytest.MonkeyPatch, function: Callable[..., object], takes_argv: bool = False) -> None:
    """Make `como try` run `function`."""
    module = types.ModuleType("como_core.cli.try_verb")
    module.run = function  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace(name=module.__name__)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, ("try",), cli.Command("como_core.cli.try_verb:run", "a verb", takes_argv))


def test_help_lists_the_verbs_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb, command in cli.commands().items():
        assert re.search(rf"^  {' '.join(verb)} +{re.escape(command.summary)}$", text, re.MULTILINE)
    assert "Examples:\n  como doctor" in text


def test_a_verb_that_is_not_there_is_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, ("teleport",), cli.Command("como_core.cli.no_such_module:run", "be there"))
    assert cli.main(["--help"]) == 0
    assert "teleport" not in capsys.readouterr().out
    assert cli.main(["teleport"]) == 2


@pytest.mark.parametrize("verb", sorted(cli.commands()), ids=" ".join)
def test_every_verb_explains_itself(verb: tuple[str, ...]) -> None:
    """Within the second: help must not wait for torch or MuJoCo."""
    done = como(*verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"como {' '.join(verb)}" in done.stdout
    assert len(done.stdout.split()) > 30, "help that short teaches nothing"


@pytest.mark.parametrize("verb", sorted(set(cli.commands()) & set(cli.EXAMPLES) - {("launch",)}), ids=" ".join)
def test_the_example_of_a_verb_is_accepted(verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that was renamed makes its example fail; the verb itself is not run."""
    called: list[tuple[str, ...]] = []
    original = cli.COMMANDS[verb].function()

    @functools.wraps(original)
    def stand_in(*values: object, **options: object) -> None:
        called.append(verb)

    monkeypatch.setattr(cli.Command, "function", lambda command: stand_in)
    assert cli.main(cli.EXAMPLES[verb].split()[1:]) == 0
    assert called == [verb]


def test_help_of_a_group(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, ("group", "one"), cli.Command("como_core.cli.doctor:doctor", "the first"))
    monkeypatch.setitem(cli.COMMANDS, ("group", "two"), cli.Command("como_core.cli.doctor:doctor", "the second"))
    for words in (["group"], ["group", "--help"]):
        assert cli.main(words) == 0
        text = capsys.readouterr().out
        assert text.startswith("usage: como group <verb>")
        assert "group one  the first" in text
        assert "doctor  " not in text


def test_help_comes_at_once() -> None:
    """The heavy libraries are not even imported."""
    program = ("import sys; from como_core.cli.main import main; main(['--help']); "
               "print([m for m in ('torch', 'numpy', 'tyro', 'mujoco', 'rclpy') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("words", "hint"), [
    (["docter"], "did you mean `como doctor`?"),
    (["frobnicate"], "verbs: doctor"),
    (["--verbose"], "unknown option '--verbose' before a verb"),
])
def test_unknown_verbs_are_told_the_nearest(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    message = capsys.readouterr().err
    assert hint in message
    assert message.count("\n") == 1


def test_options_come_from_the_signature(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(path: Path, steps: int = 3, fast: bool = False) -> None:
        """Try it.

        Examples:
            como try x --steps 5

        Args:
            path: Where.
            steps: How many.
            fast: Whether to hurry.
        """
        print(f"{path} {steps} {fast}")

    install_verb(monkeypatch, run)
    assert cli.main(["try", "--path", "x", "--steps", "5", "--fast"]) == 0
    assert capsys.readouterr().out == "x 5 True\n"
    with pytest.raises(SystemExit) as exit_code:
        cli.main(["try", "--help"])
    assert exit_code.value.code == 0
    text = capsys.readouterr().out
    assert "como try x --steps 5" in text
    assert "How many." in text


def numbers_of(verb: tuple[str, ...]) -> dict[str, type]:
    """Options of a verb that take one number, without those of a verb that looks at them itself."""
    found = {}
    for name, hint in typing.get_type_hints(cli.COMMANDS[verb].function()).items():
        kinds = {hint, *typing.get_args(hint)}
        if kinds & {int, float} and (verb, name) != (("relabel",), "workers"):
            found[f"--{name.replace('_', '-')}"] = float if float in kinds else int
    found.pop("--return", None)  # the exit code
    return found


@pytest.mark.parametrize(("verb", "option", "value"), [
    (verb, option, value) for verb in sorted(set(cli.commands()) & set(cli.EXAMPLES))
    for option, kind in numbers_of(verb).items() for value in (("nan", "inf", "-1") if kind is float else ("-1",))])
def test_no_number_without_sense_is_taken(verb: tuple[str, ...], option: str, value: str,
                                          capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    original = cli.COMMANDS[verb].function()

    @functools.wraps(original)
    def stand_in(*values: object, **options: object) -> None:
        pytest.fail("the verb runs all the same")

    monkeypatch.setattr(cli.Command, "function", lambda command: stand_in)
    assert cli.main([*cli.EXAMPLES[verb].split()[1:], option, value]) == 2
    expected = "(0 or more|1 or more|above 0)" if value == "-1" else "a finite number"
    assert re.fullmatch(rf"como: {option} must be {expected}, got {value}(\.0)?\n", capsys.readouterr().err)


def test_raw_arguments_reach_a_launch_like_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def run(argv: list[str]) -> int:
        seen.extend(argv)
        return 4

    install_verb(monkeypatch, run, takes_argv=True)
    assert cli.main(["try", "sim", "env:=metaworld:reach-v3"]) == 4
    assert seen == ["sim", "env:=metaworld:reach-v3"]


def test_what_a_user_can_mend_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        raise ComoError("videos/: no videos; expected mp4 files")

    install_verb(monkeypatch, run)
    assert cli.main(["try"]) == 2
    assert capsys.readouterr().err == "como: videos/: no videos; expected mp4 files\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_said_plainly(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        raise OSError(code, os.strerror(code), "out/model.safetensors")

    install_verb(monkeypatch, run)
    assert cli.main(["try"]) == 2
    message = capsys.readouterr().err
    assert "out/model.safetensors" in message
    assert os.strerror(code) in message


def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    def lost() -> None:
        raise OSError(errno.EBADF, "bad file descriptor")

    for function, error in ((broken, ZeroDivisionError), (lost, OSError)):
        install_verb(monkeypatch, function)
        with pytest.raises(error):
            cli.main(["try"])


def test_interrupted_says_how_to_go_on(tmp_path: Path) -> None:
    """A real Ctrl-C in a real process."""
    ready = tmp_path / "ready"
    program = f"""
import sys, time, types, pathlib
from como_core.cli import main as cli
def run():
    pathlib.Path({str(ready)!r}).touch()
    time.sleep(60)
sys.modules["como_core.cli.slow"] = module = types.ModuleType("como_core.cli.slow")
module.run, module.__spec__ = run, object()
cli.COMMANDS[("slow",)] = cli.Command("como_core.cli.slow:run", "sleep")
sys.exit(cli.main(["slow"]))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=30)
    assert process.returncode == 130
    assert message == "como: interrupted; run the same command again to resume\n"


def como(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `como` in a process of its own, as the console script does."""
    return subprocess.run([sys.executable, "-m", "como_core.cli.main", *words], capture_output=True, text=True,
                          timeout=60)


@pytest.mark.parametrize(("words", "gathered"), [
    ("run --data a --steps 3 --data b c --set x=1 --set=y=2", "run --data a b c --steps 3 --set x=1 y=2"),
    ("run other --data a -o out", "run other --data a -o out"), ("--data a -o out --data b", "--data a b -o out"),
    ("--held_out 1 --held-out -2", "--held_out 1 -2"), ("--steps 5 --data a --steps 6", "--steps 5 --data a --steps 6"),
    ("", ""), ("--dry-run --dry-run", "--dry-run --dry-run")])
def test_an_option_given_twice_has_the_values_of_both(words: str, gathered: str) -> None:
    assert cli._gathered(words.split(), {"data", "set", "held-out"}) == gathered.split()


def test_which_options_take_several_values_is_read_from_the_verb() -> None:
    verbs = cli.commands()
    assert cli._of_several_values(verbs["motion", "train"].function()) >= {"data", "set"}
    assert {"demos", "videos", "set"} <= cli._of_several_values(verbs["policy", "train"].function())
    assert "steps" not in cli._of_several_values(verbs["motion", "train"].function())


def test_no_setting_is_dropped_silently(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["motion", "train", "--data", str(tmp_path), "-o", str(tmp_path / "out")]
    assert cli.main([*words, "--set", "inverse.placed=true", "--set", "latent_size=30"]) == 2
    assert "times 4 (inverse.placed), got 30" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "expected"), [
    ("motion train --steps 5 --set loop.steps=7", "--steps 5 and --set loop.steps=7 say the same key; give one"),
    ("motion train --seed 0 --set loop.seed=1", "--seed 0 and --set loop.seed=1 say"),
    ("motion train --set gap_s=0.1 gap_s=0.2", "--set gap_s=0.1 and --set gap_s=0.2 say the same key; give one"),
    ("motion train --set gap_s=0.1 --set gap_s=0.1", "--set gap_s=0.1 and --set gap_s=0.1 say"),
    ("policy train --steps 5 --set training.steps=7", "--steps 5 and --set training.steps=7 say"),
    ("policy train --seed 5 --set training.seed=7", "--seed 5 and --set training.seed=7 say"),
    ("policy train --mode none --set cotraining.mode=heads", "--mode none and --set cotraining.mode=heads say")])
def test_a_setting_given_twice_is_refused_with_both_values(words: str, expected: str, tmp_path: Path,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    source = "--data" if words.startswith("motion") else "--demos"
    assert cli.main([*words.split(), source, str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
