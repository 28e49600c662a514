"""The log of trials: it goes on after a crash, and never mixes what does not belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from como_core.formats.trials import Trial, TrialLog, TrialLogError, read_trials, trials_under

CONDITIONS = {"policy": "abc", "timing": {"replan_periods": 4}}


def _log_with_two(path: Path) -> TrialLog:
    log = TrialLog(path, CONDITIONS)
    log.append(Trial("metaworld:reach-v3", 9000, True, 1.25, film="a.mp4"))
    log.append(Trial("metaworld:reach-v3", 9001, False, 4.0))
    return log


def test_a_log_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trials.jsonl"
    written = _log_with_two(path)
    assert TrialLog(path, CONDITIONS).trials == written.trials
    header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert header == {"schema": "como_trials", "version": 1, "conditions": CONDITIONS}
    assert [line["success"] for line in lines] == [True, False]


def test_a_line_cut_off_by_a_crash_is_dropped_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    _log_with_two(path)
    path.write_bytes(path.read_bytes()[:-20])
    log = TrialLog(path, CONDITIONS)
    assert [trial.seed for trial in log.trials] == [9000]
    log.append(Trial("metaworld:reach-v3", 9001, True, 2.0))
    assert [trial.success for trial in TrialLog(path, CONDITIONS).trials] == [True, True]


def test_a_log_can_be_looked_at_under_any_conditions(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    written = _log_with_two(path)
    assert read_trials(path) == (CONDITIONS, written.trials)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert [trial.seed for trial in read_trials(path)[1]] == [9000]
    assert path.read_bytes() == whole[:-20], "a log that is only looked at was changed"
    for text, reason in (("", "not JSON"), ('{"schema": "other"}\n', "expected a log of schema")):
        path.write_text(text)
        with pytest.raises(TrialLogError, match=reason):
            read_trials(path)
    with pytest.raises(TrialLogError, match="nowhere"):
        read_trials(tmp_path / "nowhere")


def test_times_are_kept_and_play_no_part_in_comparisons(tmp_path: Path) -> None:
    timed = Trial("metaworld:reach-v3", 1, True, 2.0, wall_s=0.5, inference_ms=(3.25, 4.0))
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append(timed)
    (found,) = TrialLog(tmp_path / "trials.jsonl").trials
    assert (found.wall_s, found.inference_ms) == (0.5, (3.25, 4.0))
    assert found == Trial("metaworld:reach-v3", 1, True, 2.0)


def test_a_trial_counts_once(tmp_path: Path) -> None:
    log = _log_with_two(tmp_path / "trials.jsonl")
    with pytest.raises(TrialLogError, match="reach-v3 from seed 9001 is logged already"):
        log.append(Trial("metaworld:reach-v3", 9001, True, 1.0))


def test_other_conditions_are_refused_with_the_key(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    _log_with_two(path)
    with pytest.raises(TrialLogError, match=r"timing.replan_periods = 4, now it is 8"):
        TrialLog(path, {"policy": "abc", "timing": {"replan_periods": 8}})


def test_a_log_is_checked_without_being_touched(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trials.jsonl"
    assert trials_under(path, CONDITIONS) == [] and not path.parent.exists()
    written = _log_with_two(path)
    whole = path.read_bytes()
    assert trials_under(path, CONDITIONS) == written.trials
    with pytest.raises(TrialLogError, match=r"policy = 'abc', now it is 'x'.*choose another folder, or move this one"):
        trials_under(path, {**CONDITIONS, "policy": "x"})
    for cut in (20, len(whole) - 5):
        path.write_bytes(whole[:-cut])
        assert [trial.seed for trial in trials_under(path, CONDITIONS)] == ([9000] if cut == 20 else [])
        assert path.read_bytes() == whole[:-cut], "a log that is only looked at was changed"
    assert TrialLog(path, CONDITIONS).trials == [] and TrialLog(path, CONDITIONS).trials == []


def test_success_has_no_default(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    _log_with_two(path)
    with path.open("a") as file:
        file.write('{"env": "metaworld:reach-v3", "seed": 9002, "duration_s": 4.0}\n')
    with pytest.raises(TrialLogError, match=r"trials.jsonl:4: 'success' is missing"):
        TrialLog(path, CONDITIONS)


@pytest.mark.parametrize(("text", "reason"), [
    ('{"schema": "como_trials", "version": 2, "conditions": {}}\n', "version 2"),
    ('{"some": "file"}\n', "expected a log of schema"),
    ("not json\n", "trials.jsonl:1: not JSON"),
    ("[1]\n", "expected a JSON object"),
    ("\n", "trials.jsonl:1: not JSON"),
    ('{"schema": "como_trials", "version": 1, "conditions": [1]}\n', "trials.jsonl:1: conditions: expected a JSON obj"),
])
def test_other_files_are_refused_and_left_alone(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text(text)
    with pytest.raises(TrialLogError, match=reason):
        TrialLog(path, {})
    assert path.read_text() == text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrialLogError, match="file/trials.jsonl: cannot be written"):
        TrialLog(tmp_path / "file" / "trials.jsonl")
