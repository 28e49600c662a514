"""The demo at its smallest: every stage does its own work, over real DDS and real physics, and a second run resumes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mcap.reader import make_reader
from rich.console import Console

from como_core import config
from como_core.errors import ComoError
from como_core.formats.rosbag import read_bag
from como_core.resources import resource
from como_ros.demo.pipeline import claim, load_plan
from como_ros.demo.plan import DemoPlan
from como_ros.demo.stages import Stage, run_stages
from como_ros.demo.summary import agreement, gain


def como(out: Path, domain: dict[str, str], *, wait: bool = True) -> subprocess.Popen[str]:
    """`como demo --plan smoke` in a process group of its own."""
    command = [sys.executable, "-m", "como_core.cli.main", "demo", "--plan", "smoke", "--out", str(out)]
    process = subprocess.Popen(command, env={**os.environ, **domain}, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    if wait:
        process.output = process.communicate(timeout=280)[0]  # type: ignore[attr-defined]
    return process


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, module_ros_domain: dict[str, str]) -> tuple[Path, str]:
    """A finished smoke demo that was interrupted once in its second stage."""
    out = tmp_path_factory.mktemp("demo") / "out"
    first = como(out, module_ros_domain, wait=False)
    deadline = time.monotonic() + 120
    while not (out / "stages" / "1_record.json").exists():
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline, "the first stage did not end"
        time.sleep(0.1)
    bags = sorted(p.name for p in (out / "bags").iterdir())
    first.send_signal(signal.SIGINT)
    text = first.communicate(timeout=60)[0]
    assert first.returncode == 130, text
    second = como(out, module_ros_domain)
    assert second.returncode == 0, second.output  # type: ignore[attr-defined]
    assert sorted(p.name for p in (out / "bags").iterdir()) == bags, "a finished stage was done again"
    return out, second.output  # type: ignore[attr-defined]


def test_every_stage_left_its_work(finished: tuple[Path, str]) -> None:
    out, text = finished
    summary = json.loads((out / "summary.json").read_text())
    assert {row["how"] for row in summary["success"]} == {"direct", "over ROS 2"}
    assert all(row["n"] > 0 and row["low"] <= row["success"] <= row["high"] for row in summary["success"])
    assert {row["input"] for row in summary["probe"]} >= {"z", "PCA of the RGB difference", "mean of the actions"}
    for name, moved in summary["moved"].items():
        assert moved["commands"] > 0 and moved["travel_m"] > 0.02, name
        assert summary["timing"][name]["arrival_to_command_ms"]["n"] > 0
    assert summary["recorded"]["messages"] > 100
    assert "done before" in text and "report.html" in text


def test_report_is_one_file_with_pictures(finished: tuple[Path, str]) -> None:
    out, _ = finished
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert "http://" not in page and "https://" not in page
    summary = json.loads((out / "summary.json").read_text())
    for row in summary["success"][:4]:
        assert f"{row['k']} / {row['n']}" in page


def test_bags_read_back_with_an_independent_reader(finished: tuple[Path, str]) -> None:
    out, _ = finished
    bag = next(p for p in (out / "bags").iterdir() if p.is_dir())
    with next(bag.glob("*.mcap")).open("rb") as stream:
        topics = [channel.topic for _, channel, _ in make_reader(stream).iter_messages()]
    episode = read_bag(bag)
    assert episode.action is not None and episode.state is not None
    assert topics.count("/como_demo/camera/image_raw") >= len(episode) > 10


def test_videos_hold_no_action(finished: tuple[Path, str]) -> None:
    out, _ = finished
    assert {p.suffix for p in (out / "videos").rglob("*") if p.is_file()} == {".mp4", ".txt"}


def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    plan = load_plan("smoke")
    claim(tmp_path / "plan.yaml", plan)
    claim(tmp_path / "plan.yaml", plan)
    with pytest.raises(ComoError, match="videos_per_task = 3, now it is 4"):
        claim(tmp_path / "plan.yaml", dataclasses.replace(plan, videos_per_task=4))


def test_unknown_plan_and_task_are_named() -> None:
    with pytest.raises(ComoError, match="demo or smoke"):
        load_plan("smok")
    text = resource("config/demo/smoke.yaml").read_text().replace("labels_per_task", "label_per_task")
    with pytest.raises(config.ConfigError, match="label_per_task.*did you mean 'labels_per_task'"):
        config.build(DemoPlan, yaml.safe_load(text))


def test_stages_go_on_after_a_failure(tmp_path: Path) -> None:
    ran: list[str] = []
    broken = True

    def second() -> dict[str, object]:
        if broken:
            raise ComoError("not yet")
        ran.append("second")
        return {"value": 2}

    def first() -> dict[str, object]:
        ran.append("first")
        return {"value": 1}

    stages = [Stage("first", "First", first), Stage("second", "Second", second)]
    console = Console(quiet=True)
    with pytest.raises(ComoError, match="not yet"):
        run_stages(stages, tmp_path, console)
    broken = False
    results = run_stages(stages, tmp_path, console)
    assert ran == ["first", "second"]
    assert (results["first"]["value"], results["second"]["value"]) == (1, 2)


def test_gain_and_agreement_pair_by_start_state() -> None:
    def rows(outcomes: str, task: str = "a") -> list[dict[str, object]]:
        return [{"task": task, "seed": i, "success": o == "1", "duration_s": 1.0} for i, o in enumerate(outcomes)]

    found = gain(rows("0000000011"), list(reversed(rows("1111100011"))))
    assert found["points"] == pytest.approx(50) and found["n"] == 10 and found["low"] > 0
    assert agreement("p", rows("1111000011"), rows("111"))["same_outcome"] == 3
    assert agreement("p", rows("1" * 20), rows("1" * 20))["agree"]
    assert not agreement("p", rows("1" * 20), rows("0" * 20))["agree"]
