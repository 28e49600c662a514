"""`como policy eval` in real physics: what it counts, compares, writes and refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from policy_data import untrained

from como_core.cli.main import main
from como_core.evaluation.report import comparison_rows, strip_sheet, success_rows
from como_core.formats.png import read_png, write_png
from como_core.formats.trials import Trial, TrialLog
from como_core.formats.video import read_video
from como_core.interface import Interface, load_interface
from como_core.resources import resource
from como_core.simulation.chunk_player import REAL_TIME

Capture = pytest.CaptureFixture[str]
REACH = "metaworld:reach-v3"
ROBOT = load_interface(resource("config/interfaces/metaworld.yaml"))


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
