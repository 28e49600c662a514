"""`como motion eval` on a small trained model: the report, its rows, its figure, and recordings that lack things."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from moving_square import FPS, moving_square, tiny, write_bag

from como_core.cli import motion as cli
from como_core.cli.main import main
from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.video import write_video
from como_core.motion.measure.baselines import BASELINES, RGB_DIFFERENCE
from como_core.motion.measure.evaluate import Measures, evaluate
from como_core.motion.measure.report import Evaluation
from como_core.motion.model import MotionModel, load_motion
from como_core.motion.targets import Target
from como_core.motion.train import train

ROW = {"preset", "split", "section", "features", "metric", "mean", "low", "high", "n", "seeds", "verdict", "command"}
QUICK = Measures(baselines=(), mlp=False, audit=False, seeds=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on 40 clips; only their pictures are read."""
    out = tmp_path_factory.mktemp("motion") / "run"
    train([moving_square(seed).without_actions() for seed in range(40)],
          tiny("como-plus"), out)
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> MotionModel:
    return load_motion(run)


def with_state(episode: Episode) -> Episode:
    """The square's place, measured."""
    assert episode.action is not None
    place = np.cumsum(np.concatenate([np.zeros((1, 2), np.float32), episode.action[:-1]]), axis=0)
    return dataclasses.replace(episode, state=place)


@pytest.fixture(scope="module")
def report(model: MotionModel, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    held_out = [with_state(moving_square(seed)) for seed in range(200, 230)]
    return evaluate(model, held_out, ["down", "right"], cache=tmp_path_factory.mktemp("cache"),
                    measures=Measures(seeds=2))


def test_z_knows_more_of_the_motion_than_the_baselines_do(report: Evaluation) -> None:
    rows = {row.features: row for row in report.rows}
    assert list(rows) == [*BASELINES, "z"]
    assert rows["mean of the actions"].r2.mean < 0.05
    assert rows["true motion"].r2.mean > 0.99
    assert rows["z"].r2.mean > 0.6 and report.gain is not None and report.gain.low > 0.3
    for row in report.rows:
        assert row.r2.low <= row.r2.mean <= row.r2.high
        assert (row.mlp_r2 is None) == (row.features == "mean of the actions")
        assert row.size == {"mean of the actions": 1, "true motion": 2}.get(row.features, 8)
    assert report.reconstruction_gain.low > 0.2
    assert (report.episodes, report.labelled, report.pairs) == (30, 30, 30 * 28 - 3)
    z, true = report.consistency
    assert z.raw.mean < 0 and true.raw.mean < -0.5 and true.features == "true motion"
    assert [line.name for line in report.audit] == ["shuffle gap", "scene cut", "transfer", "static pairs", "reversal",
                                                    "composition", "appearance"]
    assert report.notes == ["3 of 840 pairs lie across 2 scene cuts and are left out"], "jumps look like cuts"


def test_rows_are_flat_and_json_has_no_nan(report: Evaluation) -> None:
    rows = report.flat_rows("como-plus", "held_out", "como motion eval")
    assert all(set(row) == ROW for row in rows)
    found = {(row["features"], row["metric"]): row for row in rows}
    assert len(found) == len(rows), "no number twice"
    assert found["z", "r2"]["mean"] == report.rows[-1].r2.mean and found["z", "r2"]["seeds"] == 2
    assert found["z", "scene_cut"]["mean"] is None and found["z", "scene_cut"]["verdict"] == "not applicable"
    json.dumps([rows, report.to_dict()], allow_nan=False)


def test_baselines_run_once_for_models_that_share_a_cache(model: MotionModel, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [moving_square(seed) for seed in range(10)]
    measures = Measures(mlp=False, audit=False, seeds=1, baselines=(RGB_DIFFERENCE,))
    first = evaluate(model, clips, ["down", "right"], cache=tmp_path, measures=measures)
    monkeypatch.setattr("como_core.motion.measure.baselines.pair_components", lambda *_: pytest.fail("computed again"))
    other = MotionModel(tiny("continuous")).eval()
    second = evaluate(other, clips, ["down", "right"], cache=tmp_path, measures=measures)
    assert second.rows[0] == first.rows[0] and second.rows[1] != first.rows[1]


def test_plain_videos_are_audited_and_it_is_said_why_nothing_is_probed(
        run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        write_video(tmp_path / "squares" / f"{seed}.mp4", moving_square(100 + seed).images["top"], FPS)
    write_video(tmp_path / "squares" / "short.mp4", moving_square(7).images["top"][:1], FPS)
    (tmp_path / "squares" / "broken.mp4").write_bytes(b"no video")
    cli.evaluate(run, (tmp_path / "squares",), cache=tmp_path / "cache", output=tmp_path / "out" / "plain.json")
    shown = capsys.readouterr().out
    for words in ("no recording has actions, so there are no probes", "Leakage audit", "S-PCFC", "broken.mp4",
                  "1 of 4 recordings hold no two frames", "only 3 recordings"):
        assert words in shown
    written = json.loads((tmp_path / "out" / "plain.json").read_text())
    assert {row["section"] for row in written["rows"]} == {"consistency", "reconstruction", "audit"}
    assert cv2.imread(str(tmp_path / "out" / "plain.png")) is not None


def test_what_cannot_be_measured_or_written_is_said_before_the_work(
        run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "squares" / "0.mp4", moving_square(100).images["top"], FPS)
    (tmp_path / "file").write_text("here")
    cases = {
        ("eval", "--seeds", "0"): "--seeds must be 1 or more, got 0",
        ("eval", "--seed", "-1"): "--seed must be 0 or more, got -1",
        ("eval", "--device", "gpu"): "device gpu: not one that torch can use",
        ("eval", "-o", f"{tmp_path}/file/metrics.json"): "file: cannot be written: File exists; choose another folder",
        ("show", "-o", f"{tmp_path}/file"): "file: cannot be written: File exists; choose another folder",
    }
    for (verb, *words), expected in cases.items():
        assert main(["motion", verb, str(run), "--data", str(tmp_path / "squares"), *words]) == 2, words
        said = capsys.readouterr()
        assert said.err.startswith("como: ") and expected in said.err and said.err.count("\n") == 1, said.err
        assert "decoding" not in said.out
    assert (tmp_path / "file").read_text() == "here"


def test_an_output_that_would_lose_something_is_refused_before_the_work(
        run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_opened", lambda *_: pytest.fail("recordings are read before the output is looked at"))
    foreign = {"film.mp4": b"\0\0 film", "notes.json": b"{}", "cut.json": b'{"rows": [', "rows.json": b"[1]",
               "drawing.png": b"PNG"}
    for name, content in foreign.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.json").mkdir()
    cases = {"x.png": "x.png: expected a name that ends in .json for the numbers, such as x.json",
             "film.mp4": "film.mp4: expected a name that ends in .json", "out": "such as out.json",
             "folder": f"folder: is a folder; expected the name of a file, such as {tmp_path}/folder/metrics.json",
             "folder.json": "folder.json: is a folder; expected the name of a file",
             "notes.json": "notes.json: holds something else than a result of an earlier `como motion eval`, which "
                           "would be lost; move it away, or choose another name",
             "cut.json": "cut.json: holds something else",
             "rows.json": "rows.json: holds something else", "drawing.json": "drawing.png: holds something else"}
    for name, expected in cases.items():
        assert main(["motion", "eval", str(run), "--data", str(tmp_path), "-o", f"{tmp_path}/{name}"]) == 2, name
        error = capsys.readouterr().err
        assert error.startswith("como: ") and expected in error and error.count("\n") == 1, error
    assert {name: (tmp_path / name).read_bytes() for name in foreign} == foreign
    assert {entry.name for entry in tmp_path.iterdir()} == {*foreign, "folder", "folder.json"}


def test_eval_reads_bags(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(4):
        write_bag(tmp_path / "bags" / f"{seed:04d}", moving_square(300 + seed))
    (run / "metrics.json").write_text('{"rows": [], "summary": {}}')
    (run / "metrics.png").write_text("an earlier result may be overwritten")
    cli.evaluate(run, (tmp_path / "bags",), cache=tmp_path, name="mine", split="bags", seeds=1)
    shown = capsys.readouterr().out
    assert "PCA of the RGB difference" in shown and "4 episodes read" in shown
    assert "only 4 recordings with actions: the probes learn from few" in shown
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["summary"]["actions"] == ["linear.x", "linear.y", "linear.z"]
    assert {(row["preset"], row["split"]) for row in metrics["rows"]} == {("mine", "bags")}
    assert cv2.imread(str(run / "metrics.png")) is not None


@pytest.mark.parametrize("recordings", [1, 2])
def test_few_recordings_are_measured_as_far_as_they_go(model: MotionModel, tmp_path: Path, recordings: int) -> None:
    found = evaluate(model, [moving_square(seed) for seed in range(recordings)], ["down", "right"], cache=tmp_path,
                     measures=Measures(baselines=(RGB_DIFFERENCE,), seeds=1))
    assert bool(found.rows) == (recordings == 2)
    assert any("intervals say little" in note for note in found.notes)
    json.dumps([found.flat_rows(), found.to_dict()], allow_nan=False)


def test_a_row_says_how_many_recordings_have_a_part_in_it(model: MotionModel, tmp_path: Path) -> None:
    """Eight of twelve are long enough for a pair, and too short for two pairs that meet."""
    short = [shortened(moving_square(seed), 4) for seed in range(8)]
    found = evaluate(model, [*short, *map(moving_square, range(8, 12))], ["down", "right"], cache=tmp_path,
                     measures=Measures(baselines=(), mlp=False, seeds=1))
    counts = {row["metric"]: row["n"] for row in found.flat_rows()}
    assert counts["r2"] == counts["gain_in_pixels"] == 12
    assert counts["s_pcfc"] == counts["s_pcfc_centred"] == counts["s_pcfc_floor"] == 4
    assert 4 <= counts["shuffle_gap"] <= 12 and counts["scene_cut"] == 0
    assert "S-PCFC: only 4 recordings hold two pairs that meet: its intervals say little" in found.notes


def shortened(episode: Episode, steps: int) -> Episode:
    """Its first steps."""
    assert episode.action is not None
    return dataclasses.replace(episode, timestamps=episode.timestamps[:steps], action=episode.action[:steps],
                               images={name: frames[:steps] for name, frames in episode.images.items()},
                               provenance=episode.provenance[:steps])


def test_pairs_across_a_scene_cut_are_not_measured(model: MotionModel, tmp_path: Path) -> None:
    """Three scenes end to end, as films have them; that nothing moves is measured, that the scene changes is not."""
    def film(seed: int) -> Episode:
        scenes = [moving_square(seed + i) for i in range(3)]
        frames = np.concatenate([scenes[0].images["top"][:], 255 - scenes[1].images["top"][:],
                                 scenes[2].images["top"][:, ::-1]])
        return Episode(np.arange(len(frames)) / FPS, {"top": frames}, f"film#{seed}",
                       action=np.concatenate([scene.action for scene in scenes]))  # type: ignore[misc]

    found = evaluate(model, [film(seed) for seed in range(2)], ["down", "right"], cache=tmp_path, measures=QUICK)
    assert found.pairs == 2 * 3 * 28
    assert "8 of 176 pairs lie across 4 scene cuts and are left out" in found.notes
    still = dataclasses.replace(moving_square(5), images={"top": np.repeat(moving_square(5).images["top"][:1], 30, 0)})
    assert evaluate(model, [still, moving_square(6)], cache=tmp_path, measures=QUICK).pairs == 2 * 28


def test_actions_can_be_chosen_and_still_ones_are_left_out(model: MotionModel, tmp_path: Path) -> None:
    clips = [moving_square(seed) for seed in range(6)]
    clips = [dataclasses.replace(clip, action=np.insert(clip.action, 1, 0.25, axis=1)) for clip in clips]
    names = ["down", "clamp", "right"]
    found = evaluate(model, clips, names, cache=tmp_path, measures=QUICK)
    assert found.actions == ["down", "right"] and "never change, so left out of the probes: clamp" in found.notes
    only = evaluate(model, clips, names, cache=tmp_path, measures=dataclasses.replace(QUICK, actions=("ri",)))
    assert only.actions == ["right"]
    assert only.rows[0].r2.mean == pytest.approx(found.rows[0].r2_by_action["right"], abs=0.05)
    with pytest.raises(ComoError, match="no action is named like left; there are down, clamp, right"):
        evaluate(model, clips, names, cache=tmp_path, measures=dataclasses.replace(QUICK, actions=("left",)))


def test_a_lag_finds_the_commands_of_an_arm_that_follows_late(model: MotionModel, tmp_path: Path) -> None:
    late = 3
    clips = [moving_square(seed) for seed in range(100, 120)]
    clips = [dataclasses.replace(clip, action=np.concatenate([clip.action[late:], np.zeros((late, 2), np.float32)]))
             for clip in clips]
    r2 = [evaluate(model, clips, ["down", "right"], cache=tmp_path,
                   measures=dataclasses.replace(QUICK, target=Target(lag_s=lag))).rows[0].r2.mean
          for lag in (0.0, late / FPS)]
    assert r2[1] > r2[0] + 0.3
