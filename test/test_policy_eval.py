"""`como policy eval` in real physics: what it counts, compares, writes and refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from policy_data import untrained

from como_core.cli.main import main
from como_core.evaluation.report import comparison_rows, comparison_table, strip_sheet, success_rows
from como_core.formats.png import read_png, write_png
from como_core.formats.trials import Trial, TrialLog
from como_core.formats.video import read_video
from como_core.interface import Interface, load_interface
from como_core.resources import resource
from como_core.simulation import rollout
from como_core.simulation.chunk_player import REAL_TIME
from como_core.simulation.environment import Env

Capture = pytest.CaptureFixture[str]
REACH = "metaworld:reach-v3"
PUSH = "metaworld:push-v3"
ROBOT = load_interface(resource("config/interfaces/metaworld.yaml"))
BOARD = load_interface(resource("config/interfaces/pusht.yaml"))


def _untrained(folder: Path, seed: int, robot: Interface = ROBOT) -> Path:
    return untrained(folder, robot, ("reach",), seed=seed)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two policies with different weights."""
    root = tmp_path_factory.mktemp("runs")
    return _untrained(root / "one", 0), _untrained(root / "two", 1)


def _eval(run: Path, *options: object, trials: int = 2) -> int:
    words = ["policy", "eval", run, "--env", REACH, "--trials", trials, "--horizon-s", 0.5, "--processes", 1, *options]
    return main([str(word) for word in words])


def test_successes_are_counted_and_an_evaluation_goes_on_where_it_stopped(
        runs: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    assert _eval(runs[0], "-o", tmp_path, trials=1) == 0
    before = (tmp_path / "trials.jsonl").read_text()
    assert _eval(runs[0], "-o", tmp_path, "--films") == 0
    assert (tmp_path / "trials.jsonl").read_text().startswith(before)
    said = capsys.readouterr().out
    assert "95 % Wilson" in said and "0 / 2" in said and "wall time" in said and "(1 of 2 trials;" in said
    (row,) = json.loads((tmp_path / "success.json").read_text())
    assert row["env"] == REACH and (row["k"], row["n"], row["success"], row["low"]) == (0, 2, 0.0, 0.0)
    assert row["high"] == pytest.approx(0.6576, abs=1e-4)
    assert row["chunks"] == 10 and 0 < row["inference_p50_ms"] <= row["inference_p99_ms"] < 1e3 * row["wall_s"]
    assert len(read_video(tmp_path / "films" / "metaworld_reach-v3_10001.mp4")) == 6
    sheet = read_png(tmp_path / "strips_metaworld_reach-v3.png")
    assert sheet.shape == (2 * (20 + 128) + 6, 6 * 128, 3)
    assert sheet[-128:].std() > 20


def test_two_policies_are_compared_on_the_same_start_states(runs: tuple[Path, Path], tmp_path: Path,
                                                            capsys: Capture) -> None:
    assert _eval(runs[0], "-o", tmp_path, "--against", runs[1]) == 0
    assert "McNemar" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "comparison.json").read_text())
    assert (row["n"], row["k"], row["k_against"], row["difference"], row["p"]) == (2, 0, 0, 0.0, 1.0)
    log = runs[1] / "eval" / "trials.jsonl"
    assert len(log.read_text().splitlines()) == 3, "the missing trials of the other run were not run"
    assert _eval(runs[0], "-o", tmp_path, "--against", log) == 0
    assert json.loads((tmp_path / "comparison.json").read_text()) == [row]


def _log(path: Path, seeds: range, horizon_s: float = 0.5) -> Path:
    log = TrialLog(path, {"policy_sha256": "other", "horizon_s": horizon_s, "batch": 8, "timing": REAL_TIME})
    for seed in seeds:
        log.append(Trial(REACH, seed, True, 0.25))
    return path


def test_a_log_of_another_evaluation_is_refused_by_what_differs(runs: tuple[Path, Path], tmp_path: Path,
                                                                capsys: Capture) -> None:
    cases = [
        (_log(tmp_path / "elsewhere.jsonl", range(500, 503)), "it has seeds 500 to 502 of metaworld:reach-v3"),
        (_log(tmp_path / "part.jsonl", range(10_000, 10_001)), "such as metaworld:reach-v3 from seed 10001"),
        (_log(tmp_path / "longer.jsonl", range(10_000, 10_002), 4.0), "horizon_s = 4.0, these with 0.5"),
        (tmp_path / "nowhere", "neither the folder of a policy nor a log of trials"),
    ]
    for against, expected in cases:
        assert _eval(runs[0], "-o", tmp_path / "fresh", "--against", against) == 2
        said = capsys.readouterr().err
        assert said.startswith("como: ") and expected in said, said
        assert not (tmp_path / "fresh").exists(), "refused before any trial is run"
    assert _eval(runs[0], "--against", _log(tmp_path / "same.jsonl", range(9_999, 10_003))) == 0
    (row,) = json.loads((runs[0] / "eval" / "comparison.json").read_text())
    assert (row["difference"], row["only_run"], row["only_against"]) == (-1.0, 0, 2)


def test_what_cannot_be_evaluated_is_said_in_one_line(runs: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    faster = dataclasses.replace(ROBOT, action=dataclasses.replace(ROBOT.action, rate_hz=50.0))
    cases: list[tuple[list[object], str]] = [
        ([runs[0], "--env", "metaworld:raech-v3"], "did you mean 'metaworld:reach-v3'"),
        ([runs[0], "--env", REACH, "metaworld:puhs-v3"], "push-v3"),
        ([runs[0], "--env", "metawrold:reach-v3"], "did you mean 'metaworld:reach-v3'"),
        ([runs[0], "--env", f"{REACH}@lefd"], "did you mean 'left'"),
        ([tmp_path, "--env", REACH], "no complete checkpoint"),
        ([_untrained(tmp_path / "faster", 0, faster), "--env", REACH], "key 'action.rate_hz' is 50.0"),
        ([runs[0], "--env", REACH, "--trials", 0], "--trials must be 1 or more"),
        ([runs[0], "--env", REACH, "--horizon-s", 0], "--horizon-s must be above 0"),
        ([runs[0], "--env", REACH, "--first-seed", -1], "--first-seed must be 0 or more"),
        ([runs[0], "--env", REACH, "--device", "gpu"], "device gpu: not one that torch can use"),
    ]
    for words, expected in cases:
        assert main([str(word) for word in ["policy", "eval", *words]]) == 2
        said = capsys.readouterr().err
        assert said.startswith("como: ") and said.count("\n") == 1 and expected in said, said


@pytest.mark.parametrize(("name", "before", "after"), [
    ("normaliser.json", "0.0", "0.5"), ("config.yaml", "steps: 6", "steps: 5"), ("interface.yaml", "hold_s", "hold_s"),
    ("model.safetensors", "", "")])
def test_trials_of_a_policy_are_not_kept_for_another(runs: tuple[Path, Path], tmp_path: Path, capsys: Capture,
                                                     name: str, before: str, after: str) -> None:
    """Whichever of the files that make the policy has changed; what its card says plays no part."""
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(runs[0], run)
    assert _eval(run, "-o", out, trials=1) == 0
    (run / "card.md").write_text("other words")
    assert _eval(run, "-o", out, trials=1) == 0
    kept = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    if name == "model.safetensors":
        shutil.copy(runs[1] / name, run / name)
    else:
        text = (run / name).read_text()
        assert before in text
        (run / name).write_text(text.replace(before, after, 1) + "\n")
    capsys.readouterr()
    assert _eval(run, "-o", out) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"were run with policy_sha256.{name} = " in said, said
    assert "choose another folder, or move this one away" in said
    assert kept == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_every_environment_is_looked_at_before_any_trial(runs: tuple[Path, Path], tmp_path: Path, capsys: Capture,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert _eval(runs[0], "--env", REACH, "pusht:", "-o", out) == 2
    said = capsys.readouterr().err
    assert "does not fit the environment 'pusht:'" in said and not out.exists(), said
    make = rollout.env_for

    def few_starts(interface: Interface, name: str) -> Env:
        env = make(interface, name)
        env.starts = 1 if name == PUSH else None
        return env

    monkeypatch.setattr(rollout, "env_for", few_starts)
    assert _eval(runs[0], "--env", REACH, PUSH, "-o", out) == 2
    said = capsys.readouterr().err
    assert f"--trials 2: {PUSH} has 1 start states" in said and not out.exists(), said


def test_an_instruction_that_a_policy_does_not_know_is_said_before_any_trial(
        runs: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    """Whichever of the policies does not know it, and whatever place its environment has."""
    both, out = untrained(tmp_path / "both", ROBOT, ("reach", "push")), tmp_path / "out"
    for words in ([runs[0]], [both, "--against", runs[0]]):
        shutil.rmtree(runs[0] / "eval", ignore_errors=True)
        assert _eval(words[0], "--env", REACH, PUSH, "-o", out, *words[1:]) == 2
        said = capsys.readouterr().err
        assert f"como: --env {PUSH}: {runs[0]}: instruction 'push' is not one" in said, said
        assert not out.exists() and not (runs[0] / "eval").exists(), "trials of the first environment were run"


def test_a_policy_that_knows_no_action_is_not_tried(tmp_path: Path, capsys: Capture) -> None:
    run = untrained(tmp_path / "run", ROBOT, ("reach",))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("demonstrations: 1", "demonstrations: 0"))
    assert _eval(run) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"como: --env {REACH}: {run} was trained without any action"), said
    assert not (run / "eval").exists()


def test_a_policy_tried_under_other_conditions_is_refused_before_any_trial(
        runs: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    other, out = tmp_path / "other", tmp_path / "out"
    shutil.copytree(runs[1], other, ignore=shutil.ignore_patterns("eval"))
    for folder in (other / "eval", other / "eval" / ".." / "eval"):
        assert _eval(runs[0], "--against", other, "-o", folder) == 2
        said = capsys.readouterr().err
        assert "belong, which is another policy" in said and not (other / "eval").exists(), said
    assert _eval(other, trials=1) == 0
    for changed, expected in ((["--batch", 3], "batch = 8, now it is 3"),
                              (["--horizon-s", 0.25], "horizon_s = 0.5, now it is 0.25")):
        assert _eval(runs[0], "--against", other, "-o", out, *changed) == 2
        said = capsys.readouterr().err
        assert f"{other / 'eval' / 'trials.jsonl'}: " in said and expected in said and not out.exists(), said


def test_an_environment_of_several_names_counts_once(tmp_path: Path, capsys: Capture) -> None:
    run, out = untrained(tmp_path / "run", BOARD, ("",)), tmp_path / "out"
    words: list[object] = ["policy", "eval", run, "--trials", 2, "--horizon-s", 0.5, "--processes", 1, "-o", out]
    assert main([str(word) for word in [*words, "--env", "pusht", "pusht:", "pusht:push-t"]]) == 0
    (row,) = json.loads((out / "success.json").read_text())
    assert (row["env"], row["n"]) == ("pusht:", 2)
    before = (out / "trials.jsonl").read_text()
    log = tmp_path / "log.jsonl"
    log.write_text(before.replace('"pusht:"', '"pusht"'))
    assert main([str(word) for word in [*words, "--env", "pusht:push-t", "--against", log]]) == 0
    assert (out / "trials.jsonl").read_text() == before, "the same trials were run under another name"
    capsys.readouterr()
    assert main([str(word) for word in [*words, "--env", "pusht", "pusht:@top"]]) == 2
    said = capsys.readouterr().err
    assert "--env pusht: pusht:@top: for this policy, whose cameras are top, these are one environment" in said, said


@pytest.mark.parametrize("horizon_s", [1e-9, 0.024])
def test_a_horizon_in_which_no_step_is_taken_is_no_trial(runs: tuple[Path, Path], tmp_path: Path, capsys: Capture,
                                                         horizon_s: float) -> None:
    out = tmp_path / "out"
    assert _eval(runs[0], "--horizon-s", horizon_s, "-o", out) == 2
    said = capsys.readouterr().err
    assert f"--horizon-s {horizon_s:g}: " in said and "give one control period, 0.025, or more" in said, said
    assert not out.exists()
    assert _eval(runs[0], "--horizon-s", 0.025, "-o", out, trials=1) == 0


@pytest.mark.parametrize("name", ["success.json", "comparison.json"])
@pytest.mark.parametrize("foreign", ['[{"mine": 1}]', "[]", '{"rows": []}', "text"])
def test_a_file_of_something_else_is_not_replaced(runs: tuple[Path, Path], tmp_path: Path, capsys: Capture,
                                                  name: str, foreign: str) -> None:
    (tmp_path / name).write_text(foreign)
    against = ["--against", _log(tmp_path / "log.jsonl", range(10_000, 10_002))] if name == "comparison.json" else []
    assert _eval(runs[0], "-o", tmp_path, *against) == 2
    said = capsys.readouterr().err
    assert f"{name}: holds something else than a result of an earlier `como policy eval`" in said, said
    assert (tmp_path / name).read_text() == foreign and not (tmp_path / "trials.jsonl").exists()


def _trials(outcomes: str, env: str, inference_ms: tuple[float, ...] = ()) -> list[Trial]:
    return [Trial(env, seed, mark == "+", 1.0, wall_s=0.5, inference_ms=inference_ms)
            for seed, mark in enumerate(outcomes)]


def test_rows_are_per_task_and_overall() -> None:
    rows = success_rows(_trials("++-", "a", (1.0, 3.0)) + _trials("-", "b", (101.0, 1.0)))
    assert [(row["env"], row["k"], row["n"], row["wall_s"]) for row in rows] == [
        ("a", 2, 3, 1.5), ("b", 0, 1, 0.5), ("all", 2, 4, 2.0)]
    assert [row["inference_p50_ms"] for row in rows] == [2.0, 51.0, 2.0]
    assert rows[1]["inference_p99_ms"] == pytest.approx(100.0)
    (unknown,) = success_rows([Trial("a", 0, True, 1.0)])
    assert unknown["wall_s"] is None and unknown["inference_p50_ms"] is None


def test_a_comparison_counts_what_one_alone_achieved() -> None:
    run = _trials("+++-", "a") + _trials("-+", "b")
    against = _trials("+--+", "a") + _trials("-+", "b")
    rows = comparison_rows(run, against)
    assert [(row["env"], row["only_run"], row["only_against"]) for row in rows] == [
        ("a", 2, 1), ("b", 0, 0), ("all", 2, 1)]
    assert rows[2]["difference"] == pytest.approx(1 / 6)
    assert rows[2]["p"] == 1.0 and rows[2]["low"] < 1 / 6 < rows[2]["high"]
    assert "fewer than 50 trials" in str(comparison_table("run", "other", rows).caption)
    many = comparison_rows(_trials("+" * 50, "a"), _trials("-" * 50, "a"))
    assert comparison_table("run", "other", many).caption is None


def test_a_sheet_shows_some_of_each_outcome(tmp_path: Path) -> None:
    trials = _trials("-+++++", "a")
    strips = {trial.seed: tmp_path / f"{trial.seed}.png" for trial in trials}
    assert strip_sheet(trials, strips) is None
    for seed, path in strips.items():
        write_png(path, np.full((32, 64, 3), 40 * seed, np.uint8))
    sheet = strip_sheet(trials, strips)
    assert sheet is not None
    shown = [int(sheet[line, 100, 0]) for line in (80, 80 + 122, 80 + 2 * 122, 80 + 3 * 122)]
    assert shown == [40, 80, 120, 0] and sheet.shape == (4 * 116 + 3 * 6, 192, 3)
