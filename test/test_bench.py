"""`como bench`: that it runs, says what it measured, and computes its ratios right. No test here is timed."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import policy_data
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from como_core.bench import clips, labelling, learning, memory, motion
from como_core.bench.measure import Report, Row, in_turns, machine, matmul_flops_per_s
from como_core.bench.policy import HORIZON, FreshPolicy, comparable, like
from como_core.cli import main as cli
from como_core.errors import OutputError
from como_core.formats.video import CAMERA, read_video
from como_core.interface import load_interface
from como_core.motion.engine import cores
from como_core.motion.model import MotionModel
from como_core.motion.train import MotionLoss
from como_core.resources import resource


def test_the_whole_of_it_runs_and_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "bench.json"
    assert cli.main(["bench", "motion", "--quick", "-o", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["settings"]["quick"] is True
    assert found["machine"]["cores"] == cores()
    rows = {row["name"]: row for row in found["rows"]}
    assert {row["goal"] for row in rows.values()} == {None, 0.05, 0.9, 1.1, 1.9}
    for row in rows.values():
        assert np.isfinite([row["low"], row["value"], row["high"]]).all(), row
        assert row["low"] <= row["value"] <= row["high"], row
        assert (row["met"] is None) == (row["goal"] is None)
    shown = capsys.readouterr().out
    assert "relabelling over its limit" in shown
    assert "memory of building a training set" in shown


def test_a_name_that_is_not_there_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "relabel"]) == 2
    assert "no benchmark 'relabel'; there are: motion, node, policy" in capsys.readouterr().err


def test_the_node_is_measured_beside_the_least_one(tmp_path: Path) -> None:
    """Real processes over DDS; a busy machine may make it slow, and still a command comes of most frames."""
    out = tmp_path / "node.json"
    assert cli.main(["bench", "node", "--quick", "--json", str(out)]) == 0
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    median, added, over = (rows[f"1 camera 224x224 raw: {what}, p50"]["value"]
                           for what in ("stamp to command", "added to the least node", "over the least node"))
    assert 0.1 < median < 500, "milliseconds: each answer is matched with the frame it answers"
    assert over == pytest.approx(median / (median - added))
    lost = rows["1 camera 224x224 raw: frames without a command"]
    assert lost["unit"] == "of 90" and lost["value"] < 45
    assert any("jitter" in name for name in rows)


def test_policies_are_measured_alone_and_a_peer_that_is_none_is_refused(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "policy.json"
    assert cli.main(["bench", "policy", "--quick", "--json", str(out)]) == 0
    rows = {row["name"].partition(" (")[0] + row["name"].rpartition(")")[2]: row
            for row in json.loads(out.read_text())["rows"]}
    assert len(rows) == 4 and all(row["value"] > 0 for row in rows.values())
    assert rows["preset diffusion: one chunk"]["unit"] == "ms"
    for python, said in ((sys.executable, "its process ended: "), (tmp_path / "none", "No such file")):
        assert cli.main(["bench", "policy", "--quick", "--peer", str(python)]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["bench", "motion", "--quick", "--peer", sys.executable]) == 2
    assert "--peer belongs to" in capsys.readouterr().err


@pytest.mark.parametrize("network", ["mlp", "transformer", "autoregressive"])
def test_ours_is_made_as_large_as_the_peer(network: str) -> None:
    robot = load_interface(resource("config/interfaces/pusht.yaml"))
    config = like(51_545_986, comparable(network, (), robot, 2), robot)
    assert FreshPolicy(config, robot).parameters == pytest.approx(51_545_986, rel=0.01)
    assert config.observation.image_size == 96 and config.chunk_steps == HORIZON


def test_cases_are_measured_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []

    def case(name: str, value: float) -> float:
        calls.append(name)
        return value

    turns = in_turns({"a": lambda: case("a", len(calls)), "b": lambda: case("b", 7)}, 2)
    assert calls == list("ababab")
    assert turns["a"].tolist() == [2, 4]
    assert turns["b"].tolist() == [7, 7]
    calls.clear()
    in_turns({"a": lambda: case("a", 0), "b": lambda: case("b", 0)}, 1, warm_up=False)
    assert calls == ["a", "b"]


def test_rows_are_medians_with_their_range_and_know_their_goal() -> None:
    row = Row.of("x", np.array([3.0, 1.0, 2.0]), goal=2.0)
    assert (row.value, row.low, row.high, row.met) == (2, 1, 3, True)
    assert Row.of("x", np.array([1.9]), goal=2.0).met is False
    assert Row.of("x", np.array([1.9]), goal=2.0, at_most=True).met is True
    assert Row.of("x", np.array([2.1]), goal=2.0, at_most=True).met is False
    assert Row.of("x", np.array([1.0])).met is None


def test_ratios_of_relabelling_are_to_the_slower_limit_of_the_same_turn() -> None:
    turns = {"decode": np.array([1.0, 4.0]), "encode": np.array([2.0, 2.0]), "relabel": np.array([2.0, 8.0]),
             "pairs": np.array([4.0, 4.0])}
    rows = {row.name: row for row in labelling._rows("m", turns, 100, 80, 1, 1.9)}
    over = rows["m: relabelling over its limit (decoding)"]
    assert (over.low, over.high, over.goal) == (0.5, 1, 0.9)
    gain = rows["m: relabelling over encoding both frames of every pair"]
    assert (gain.low, gain.high, gain.goal) == (0.625, 2.5, 1.9)
    assert rows["m: relabelling"].high == 50


def test_an_output_that_would_lose_something_is_refused_before_the_work(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion, "bench_motion", lambda quick: pytest.fail("measured before the output is looked at"))
    (tmp_path / "mine.json").write_text("[]")
    for name, expected in {"mine.json": "holds something else than a result of an earlier `como bench`",
                           "bench.txt": "expected a name that ends in .json", "": "is a folder",
                           "mine.json/a.json": "mine.json: cannot be written"}.items():
        assert cli.main(["bench", "motion", "-o", str(tmp_path / name)]) == 2
        assert expected in capsys.readouterr().err
    assert (tmp_path / "mine.json").read_text() == "[]"


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/a.json: cannot be written"):
        Report("motion", (), machine()).write(tmp_path / "file" / "a.json")


def test_operations_of_a_step_grow_with_its_batch_and_count_both_passes(tmp_path: Path) -> None:
    paths = clips.write_clips(tmp_path / "clips", 1, 30, 32, 32)
    config = clips.tiny_config()
    counts = []
    for size in (4, 8):
        sized = dataclasses.replace(config, loop=dataclasses.replace(config.loop, batch_size=size))
        data = learning.open_training_data([read_video(paths[0])], learning.Mixture.of_one("x", 1), sized, None,
                                           tmp_path / "cache")
        counts.append(learning.flops_per_step(data, sized))
    assert counts[1] == 2 * counts[0] > 0
    with FlopCounterMode(display=False) as forward:
        MotionLoss(sized)(MotionModel(sized), data.sampler(sized)(np.random.default_rng(0)))
    assert 2 < counts[1] / forward.get_total_flops() <= 3
    assert matmul_flops_per_s(torch.float32, torch.device("cpu"), 64, least_s=0) > 0


def test_clips_move_and_many_are_names_of_one(tmp_path: Path) -> None:
    pictures = clips.moving_pictures(0, 10, 64, 48)
    assert pictures.shape == (10, 64, 48, 3)
    changed = [float((a != b).mean()) for a, b in zip(pictures[1:], pictures[:-1], strict=True)]
    assert min(changed) > 0
    assert max(changed) < 0.9
    clips.many_clips(tmp_path / "many", 203)
    files = sorted((tmp_path / "many").rglob("*.mp4"))
    assert len(files) == 203
    assert len({file.stat().st_ino for file in files}) == 1
    assert len(read_video(files[-1]).images[CAMERA]) == 8


def test_peak_memory_is_that_of_the_process_itself(tmp_path: Path) -> None:
    held = np.ones(75_000_000)  # 600 MB, which getrusage would count in every process that this one starts
    peaks = [row.value for row in memory.memory_rows(1, 2, tmp_path) if row.unit == "MB"]
    assert len(peaks) == 4
    assert min(peaks) > 50
    assert max(peaks) < 550 < memory._own_peak_mb()
    assert held.nbytes == 600_000_000


def test_the_sizes_differ_only_in_how_much() -> None:
    assert motion.QUICK.many < motion.FULL.many == 10_000
    assert motion.FULL.few == 100


def test_the_training_time_beside_lerobot_is_that_of_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                   ) -> None:
    """Also where the run was finished before, and training returns at once."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1])
    from benchmarks import lerobot_success

    trained: list[float] = []
    monkeypatch.setattr(lerobot_success, "load", lambda *_: {"task": policy_data.demonstrations()})
    monkeypatch.setattr(lerobot_success, "load_interface", lambda _: policy_data.INTERFACE)
    monkeypatch.setattr(lerobot_success, "like", lambda *_: policy_data.config())
    monkeypatch.setattr(lerobot_success, "STEPS", 30)
    monkeypatch.setattr(lerobot_success, "_tried", lambda *given: trained.append(given[-1]) or {})
    for _ in range(2):
        lerobot_success.run_ours("mlp", 1000, 0, tmp_path, tmp_path)
    assert trained[0] == trained[1] > 0
