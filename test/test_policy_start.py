"""Training that begins with the weights of another policy, and what is said to do with a policy that was trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from policy_data import INTERFACE, config, demonstrations, untrained

from como_core import config as configuration
from como_core.cli.main import main
from como_core.interface import Interface, load_interface
from como_core.policy.action_space import ActionSpace
from como_core.policy.checkpoint import LatentsOf, PolicyError, TrainedConfig, build_model, load_weights, save_policy
from como_core.policy.config import PolicyConfig
from como_core.policy.cotraining import CotrainingMode
from como_core.policy.normaliser import Affine, Normaliser
from como_core.policy.text import TextConfig, Vocabulary
from como_core.resources import resource

Capture = pytest.CaptureFixture[str]
LEAVE = "or leave --start-from out"


def _begin(start: Path, instructions: tuple[str, ...], given: PolicyConfig, interface: Interface = INTERFACE) -> str:
    """As `train` begins with weights."""
    identity = Affine.identity(ActionSpace.of(interface).size)
    scales = Normaliser(identity, latent=Affine.identity(6) if given.cotraining.predicts_latents else None)
    model = build_model(given, Vocabulary(instructions), interface, scales)
    return load_weights(model, start, TrainedConfig(given, instructions))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that knows "left" and "right"."""
    return untrained(tmp_path_factory.mktemp("start"))


@pytest.mark.parametrize("others", [("aim", "zap"), ("right", "left"), ("aim", "left", "right"), ("left",)])
def test_weights_of_other_instructions_are_refused(start: Path, others: tuple[str, ...]) -> None:
    """Each instruction is an input of the network, which would mean another task."""
    assert len(_begin(start, ("left", "right"), config())) == 64
    with pytest.raises(PolicyError) as refused:
        _begin(start, others, config())
    said = str(refused.value)
    assert said.startswith(f"{start}: training cannot begin with its weights") and said.endswith(LEAVE), said
    assert f"they are 'left', 'right' there and {', '.join(map(repr, others))} here" in said
    assert "different runs" not in said, "nothing is wrong with the checkpoint"


def test_a_single_instruction_says_nothing_and_many_are_cut_short(tmp_path: Path) -> None:
    one = untrained(tmp_path / "one", instructions=("",))
    assert _begin(one, ("left",), config())
    many = untrained(tmp_path / "many", instructions=tuple(f"task {i:02}" for i in range(30)))
    with pytest.raises(PolicyError, match=r"'task 00', .*'task 07' and 22 more there and 'left' here"):
        _begin(many, ("left",), config())


def test_a_text_encoder_is_no_list_of_instructions(start: Path) -> None:
    read = dataclasses.replace(config(), observation=dataclasses.replace(config().observation,
                                                                         text=TextConfig("some/bert", "ab" * 32)))
    with pytest.raises(PolicyError, match=r"reads instructions with the list of instructions, this training with the "
                                          r"text encoder some/bert \(abababababab\); give observation.text.model"):
        _begin(start, ("left", "right"), read)


@pytest.mark.parametrize(("given", "expected"), [
    (config("heads"), "cotraining.mode is 'none' there and 'heads' here, which makes another network"),
    (config(family="autoregressive"), "family is 'diffusion' there and 'autoregressive' here"),
    (dataclasses.replace(config(), network=dataclasses.replace(config().network, width=64)),
     "network.width is 32 there and 64 here"),
    (dataclasses.replace(config(steps=7), chunk_steps=6), "chunk_steps is 4 there and 6 here"),
])
def test_weights_of_another_network_are_refused_by_the_setting(start: Path, given: PolicyConfig,
                                                               expected: str) -> None:
    with pytest.raises(PolicyError) as refused:
        _begin(start, ("left", "right"), given)
    said = str(refused.value)
    assert expected in said and said.endswith(LEAVE) and "different runs" not in said, said


@pytest.mark.parametrize(("mode", "there", "here", "refused"), [
    ("heads", ("a@1", 0.2), ("b@2", 0.2), True), ("joint", ("a@1", 0.2), ("a@1", 0.4), True),
    ("heads", ("a@1", 0.2), ("a@1", 0.2), False), ("heads", ("", 0.0), ("b@2", 0.2), False),
    ("heads", ("a@1", 0.2), ("", 0.0), False), ("decoded", ("a@1", 0.2), ("b@2", 0.2), False)])
def test_weights_that_predict_others_latents_are_refused(tmp_path: Path, mode: CotrainingMode,
                                                         there: tuple[str, float], here: tuple[str, float],
                                                         refused: bool) -> None:
    """Where both are known; decoded, no latent is predicted."""
    given, words = config(mode), ("left", "right")
    scales = Normaliser(Affine.identity(3), latent=Affine.identity(6) if mode != "decoded" else None)
    model = build_model(given, Vocabulary(words), INTERFACE, scales)
    save_policy(tmp_path, model, TrainedConfig(given, words, latents=LatentsOf(*there)), INTERFACE, scales, "card")
    now = TrainedConfig(given, words, latents=LatentsOf(*here))
    if not refused:
        assert load_weights(model, tmp_path, now)
        return
    with pytest.raises(PolicyError, match=f"latents of a@1 at gap 0.2 s, .* are of {here[0]} at gap {here[1]} s"):
        load_weights(model, tmp_path, now)


def test_weights_of_another_robot_are_refused_by_the_tensor(start: Path) -> None:
    robot = dataclasses.replace(INTERFACE, action=dataclasses.replace(INTERFACE.action, gripper=None))
    with pytest.raises(PolicyError, match=r"tensor 'head.* is .* there and .* here; both need the same preset"):
        _begin(start, ("left", "right"), config(), robot)


METAWORLD, BOARD = (load_interface(resource(f"config/interfaces/{name}.yaml")) for name in ("metaworld", "pusht"))
AFAR = dataclasses.replace(METAWORLD, cameras={"wrist": METAWORLD.cameras["front"]})


@pytest.mark.parametrize(("robot", "instructions", "labels", "expected"), [
    (METAWORLD, ("button press", "reach"), 1, "next: como policy eval OUT --env metaworld:button-press-v3 --trials 50"),
    (METAWORLD, ("",), 1, "next: como policy eval OUT --env metaworld:drawer-open-v3 --trials 50"),
    (METAWORLD, ("fold the towel",), 1, "next: como policy show OUT --data bags -o pictures/"),
    (AFAR, ("reach",), 1, "next: como policy show OUT --data bags -o pictures/"),
    (BOARD, ("push the T-shaped block onto its mark",), 1, "next: como policy eval OUT --env pusht: --trials 50"),
    (INTERFACE, ("left", "right"), 1, "next: como policy show OUT --data bags -o pictures/"),
    (METAWORLD, ("reach",), 0, "it knows motion and no action, and is there to start from; next: como policy train "
                               "--start-from OUT --mode heads "),
])
def test_what_is_said_to_do_next_fits_the_policy(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch,
                                                 robot: Interface, instructions: tuple[str, ...], labels: int,
                                                 expected: str) -> None:
    out = tmp_path / "a policy"

    def trained(*_: object) -> SimpleNamespace:
        untrained(out, robot, instructions)
        configuration.save(TrainedConfig(config("heads" if labels == 0 else "none"), instructions, labels),
                           out / "config.yaml")
        return SimpleNamespace(notes=list)

    data = SimpleNamespace(demonstrations=demonstrations(1), videos=[], summary=str, latents=LatentsOf())
    monkeypatch.setattr("como_core.policy.sources.recorded_interface", lambda _: robot)
    monkeypatch.setattr("como_core.policy.sources.open_training_data", lambda *_: data)
    monkeypatch.setattr("como_core.policy.train.train", trained)
    assert main(["policy", "train", "--demos", "bags/", "-o", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"policy in {out}; {expected.replace('OUT', repr(str(out)))}"), said
