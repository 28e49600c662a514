"""Training, resuming, checkpoints and prediction of a policy, on a robot that takes seconds."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from policy_data import GOALS, INTERFACE, config, demonstrations, picture, videos

from como_core.action_chunk import Observation
from como_core.config import with_options
from como_core.errors import ComoError
from como_core.policy.checkpoint import PolicyError, TrainedPolicy, load_policy
from como_core.policy.diffusion import SamplerName
from como_core.policy.train import train
from como_core.training.checkpoint import CheckpointError


def _observe(place: tuple[float, float], instruction: str | None = "left", stamp_s: float = 0.0) -> Observation:
    return Observation(stamp_s, {"front": picture(np.array(place))}, np.array(place, np.float32), instruction)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A co-trained policy that has learnt its task."""
    return train(demonstrations(), videos(), INTERFACE, config("decoded", steps=250),
                 tmp_path_factory.mktemp("policy")).directory


@pytest.fixture(scope="module")
def policy(run: Path) -> TrainedPolicy:
    return load_policy(run)


def test_policy_steers_towards_the_goal_of_the_instruction(policy: TrainedPolicy) -> None:
    for instruction, goal in GOALS.items():
        values = policy.predict(_observe((0.5, 0.5), instruction)).values
        assert np.sign(values[0, 0]) == np.sign(goal[0] - 0.5)
        assert abs(values[0, 2] - (instruction == "left")) < 0.2


def test_chunk_has_times_units_and_shape_of_the_interface(policy: TrainedPolicy, run: Path) -> None:
    policy.warm_up()
    chunk = policy.predict(_observe((0.4, 0.4)))
    np.testing.assert_allclose(chunk.times_s, np.arange(4) / 20)
    assert chunk.values.shape == (4, 3) and chunk.values.dtype == np.float32 and chunk.source == str(run)
    assert np.all(chunk.values[:, 2] >= 0) and np.all(chunk.values[:, 2] <= 1)
    assert policy.interface == INTERFACE and policy.instructions == ("left", "right")


def test_same_observation_same_chunk_in_a_fresh_process(policy: TrainedPolicy, run: Path) -> None:
    ours = policy.predict(_observe((0.3, 0.6), "right")).values
    np.testing.assert_array_equal(ours, policy.predict(_observe((0.3, 0.6), "right", stamp_s=9.0)).values)
    program = ("import json, sys; sys.path.insert(0, 'test'); from test_policy_train import _observe, load_policy; "
               f"print(json.dumps(load_policy({str(run)!r}).predict(_observe((0.3, 0.6), 'right')).values.tolist()))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[1])
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), ours, rtol=1e-5, atol=1e-6)


def test_observation_that_does_not_fit_is_refused(policy: TrainedPolicy) -> None:
    with pytest.raises(PolicyError, match="lacks camera 'front'.*has: wrist"):
        policy.predict(Observation(0.0, {"wrist": picture(np.zeros(2))}, None, "left"))
    for none in (picture(np.zeros(2)) / 255, picture(np.zeros(2))[..., 0], np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(PolicyError, match=r"camera 'front': expected an RGB picture, uint8 \[H, W, 3\], got"):
            policy.predict(Observation(0.0, {"front": none}, None, "left"))
    with pytest.raises(PolicyError, match="'lfet' is not one.*did you mean 'left'"):
        policy.predict(_observe((0.5, 0.5), "lfet"))
    with pytest.raises(PolicyError, match="instruction ''"):
        policy.predict(_observe((0.5, 0.5), None))


def test_picture_of_another_size_is_made_to_fit(policy: TrainedPolicy) -> None:
    large = np.kron(picture(np.array([0.5, 0.5])), np.ones((4, 4, 1), np.uint8))
    big = policy.predict(Observation(0.0, {"front": large}, None, "left")).values
    np.testing.assert_allclose(big, policy.predict(_observe((0.5, 0.5))).values, atol=1e-4)


@pytest.mark.parametrize("sampler", ["flow", "ddim"])
def test_both_samplers_learn(tmp_path: Path, sampler: SamplerName) -> None:
    settings = config(steps=250, sampler=sampler)
    found = load_policy(train(demonstrations(6), [], INTERFACE, settings, tmp_path).directory)
    far, there = (found.predict(_observe((x, 0.5), "right")).values[:, 0].mean() for x in (0.3, 0.8))
    assert far > 0.6 and abs(there) < 0.3, "fast from afar, at rest at the goal"


def test_broken_off_training_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config("decoded", steps=20)
    whole = train(demonstrations(), videos(), INTERFACE, settings, tmp_path / "whole")
    import como_core.policy.train as module

    original, calls = module.loss, 0

    def breaks(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 14:
            raise KeyboardInterrupt
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "loss", breaks)
    with pytest.raises(KeyboardInterrupt):
        train(demonstrations(), videos(), INTERFACE, settings, tmp_path / "broken")
    assert not (tmp_path / "broken" / "model.safetensors").exists(), "an unfinished run is no checkpoint"
    monkeypatch.setattr(module, "loss", original)
    resumed = train(demonstrations(), videos(), INTERFACE, settings, tmp_path / "broken")
    assert resumed.history.loss == whole.history.loss
    assert (tmp_path / "broken/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_nan_names_the_files_of_its_batch(tmp_path: Path) -> None:
    wild = config(steps=6, save_every=1)
    wild = dataclasses.replace(wild, training=dataclasses.replace(wild.training, learning_rate=1e30))
    with pytest.raises(ComoError, match=r"training stopped; the last good.*batch came from left#0, left#1, right#0"):
        train(demonstrations(), [], INTERFACE, wild, tmp_path)


def test_run_is_not_gone_on_with_when_the_labels_have_changed(tmp_path: Path) -> None:
    train(demonstrations(), videos(), INTERFACE, config("decoded", steps=5), tmp_path)
    with pytest.raises(ComoError, match="data"):
        train(demonstrations(), videos(5), INTERFACE, config("decoded", steps=5), tmp_path)


def test_run_is_not_gone_on_with_when_the_pictures_have_changed(tmp_path: Path) -> None:
    given = demonstrations()
    train(given, [], INTERFACE, config("none", steps=2), tmp_path, cache=tmp_path / "a")
    given[1] = dataclasses.replace(given[1], images={"front": 255 - given[1].images["front"][:]})
    with pytest.raises(CheckpointError, match=r"other settings or data lies here \(run\.data"):
        train(given, [], INTERFACE, config("none", steps=2), tmp_path, cache=tmp_path / "a")


def test_a_batch_of_video_alone_that_teaches_no_action_is_refused(tmp_path: Path) -> None:
    alone = with_options(config("heads", steps=2), **{"cotraining.video_share": 0.99})
    with pytest.raises(ComoError, match=r"video_share 0.99 leaves no demonstration in a batch of \d+, so no action"):
        train(demonstrations(), videos(), INTERFACE, alone, tmp_path)


def test_a_source_need_not_be_utf8(tmp_path: Path) -> None:
    given = [dataclasses.replace(e, source=f"caf\udce9/{e.source}") for e in demonstrations()]
    assert load_policy(train(given, [], INTERFACE, config("none", steps=2), tmp_path).directory).instructions


def test_a_checkpoint_without_its_training_is_not_replaced(run: Path, tmp_path: Path) -> None:
    """As of a policy that was copied here, or whose training state was deleted for its size."""
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("training", "cache"))
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(CheckpointError, match="holds .*model.safetensors.*, and no state of a training that wrote"):
        train(demonstrations(), [], INTERFACE, config("none"), copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_proprioception_may_be_absent_in_video_but_not_on_the_robot(tmp_path: Path) -> None:
    found = load_policy(train(demonstrations(), videos(), INTERFACE, config("decoded", state=True), tmp_path).directory)
    assert found.predict(_observe((0.5, 0.5))).values.shape == (4, 3)
    with pytest.raises(PolicyError, match="no state"):
        found.predict(dataclasses.replace(_observe((0.5, 0.5)), state=None))
    with pytest.raises(PolicyError, match="2 finite values"):
        found.predict(dataclasses.replace(_observe((0.5, 0.5)), state=np.array([np.nan, 0], np.float32)))


def test_checkpoint_names_what_was_done(run: Path) -> None:
    card = (run / "card.md").read_text()
    assert "co-training decoded" in card and "4 episodes" in card and "8 episodes" in card
    assert {"config.yaml", "model.safetensors", "interface.yaml", "normaliser.json"} <= {p.name for p in run.iterdir()}


def test_checkpoint_of_mixed_files_is_refused(run: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "model.safetensors", "interface.yaml", "normaliser.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("chunk_steps: 4", "chunk_steps: 5"))
    with pytest.raises(PolicyError, match="different runs"):
        load_policy(tmp_path)
    (tmp_path / "normaliser.json").unlink()
    with pytest.raises(PolicyError, match="normaliser.json"):
        load_policy(tmp_path)
