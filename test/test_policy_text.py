"""Instructions through a text encoder, and rotations in six numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_data import INTERFACE, config, demonstrations, picture
from transforms3d.euler import euler2quat
from transforms3d.quaternions import quat2mat

from como_core.action_chunk import Observation
from como_core.errors import ComoError
from como_core.interface import Action
from como_core.policy.action_space import ActionSpace
from como_core.policy.checkpoint import PolicyError, load_policy
from como_core.policy.data import check_demonstrations
from como_core.policy.text import Sentences, TextConfig, TextError, Vocabulary
from como_core.policy.train import train

POSE = (*(f"position.{a}" for a in "xyz"), *(f"orientation.{a}" for a in "xyzw"))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with random weights, as `transformers` keeps them in a folder."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "right", "go", "to", "the"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                         intermediate_size=64)).save_pretrained(folder)
    return folder


def test_a_text_encoder_takes_sentences_that_nobody_trained_on(sentences: Path, tmp_path: Path) -> None:
    given = config("none")
    given = dataclasses.replace(given, observation=dataclasses.replace(given.observation,
                                                                       text=TextConfig(str(sentences))))
    found = load_policy(train(demonstrations(), [], INTERFACE, given, tmp_path).directory)
    images = {"front": picture(np.array([0.5, 0.5]))}
    asked = ("left", "right", "go to the left")
    chunks = [found.predict(Observation(0.0, images, None, said)).values for said in asked]
    assert not np.allclose(chunks[0], chunks[1]) and not np.allclose(chunks[0], chunks[2])
    with pytest.raises(ComoError, match="an empty instruction"):
        found.predict(Observation(0.0, images, None, " "))
    assert "sha256: ''" not in (tmp_path / "config.yaml").read_text(), "which weights they were is kept"


def test_another_text_encoder_than_that_of_training_is_refused(sentences: Path) -> None:
    ours = Sentences(TextConfig(str(sentences)))
    assert Sentences(TextConfig(str(sentences), ours.sha256)).size == 32
    with pytest.raises(TextError, match="not those that the policy was trained with"):
        Sentences(TextConfig(str(sentences), "0" * 64))
    with pytest.raises(ComoError, match=r"nowhere: no folder at /.*; expected a folder with .* and the tokenizer"):
        Sentences(TextConfig(str(sentences / "nowhere")))
    (sentences / "empty").mkdir()
    with pytest.raises(TextError, match="no text encoder of `transformers`"):
        Sentences(TextConfig(str(sentences / "empty")))


def test_features_do_not_depend_on_what_else_is_asked(sentences: Path) -> None:
    text = Sentences(TextConfig(str(sentences)))
    together = text.features(["left", "go to the right"])
    torch.testing.assert_close(together[:1], text.features(["left"]))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(("said", "reason"), [
    ("go to the left " * 750, r"'go to the left go .*\.\.\.': 3002 tokens, and the text encoder .* reads 512 at most"),
    ("left \udcff", r"'left \\udcff': holds bytes that were not UTF-8"),
])
def test_what_the_text_encoder_cannot_read_is_refused_by_name(sentences: Path, tmp_path: Path, said: str,
                                                              reason: str) -> None:
    """Its tokeniser says nothing of a longest sentence; its network has 512 places."""
    text = Sentences(TextConfig(str(sentences)))
    assert text.features(["left " * 510]).shape == (1, 32)
    with pytest.raises(TextError, match=reason):
        text.features([said])
    given = dataclasses.replace(config("none", steps=1), observation=dataclasses.replace(
        config("none").observation, text=TextConfig(str(sentences))))
    policy = load_policy(train(demonstrations(1), [], INTERFACE, given, tmp_path).directory)
    with pytest.raises(PolicyError, match=reason):
        policy.predict(Observation(0.0, {"front": picture(np.array([0.5, 0.5]))}, None, said))


def test_a_sentence_is_as_long_as_network_and_tokeniser_both_take(sentences: Path, tmp_path: Path) -> None:
    """RoBERTa counts its places from behind the padding's."""
    from transformers import BertTokenizer, RobertaConfig, RobertaModel

    sizes = RobertaConfig(vocab_size=10, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=64, max_position_embeddings=20, pad_token_id=1)
    RobertaModel(sizes).save_pretrained(tmp_path)
    BertTokenizer(str(sentences / "vocab.txt")).save_pretrained(tmp_path)
    text = Sentences(TextConfig(str(tmp_path)))
    assert text.features(["left " * 16]).shape == (1, 32)
    with pytest.raises(TextError, match="19 tokens, .* reads 18 at most"):
        text.features(["left " * 17])
    BertTokenizer(str(sentences / "vocab.txt"), model_max_length=9).save_pretrained(tmp_path)
    with pytest.raises(TextError, match="10 tokens, .* reads 9 at most"):
        Sentences(TextConfig(str(tmp_path))).features(["left " * 8])


def test_the_vocabulary_names_the_nearest() -> None:
    with pytest.raises(TextError, match="'lfet' is not one.*did you mean 'left'"):
        Vocabulary(("left", "right")).features(["lfet"])
    assert Vocabulary(("",)).features(["whatever"]).tolist() == [[1.0]]


def test_rotations_come_back_and_are_continuous() -> None:
    space = ActionSpace((*POSE, "gripper"), 8)
    assert space.size == 10
    rng = np.random.default_rng(0)
    poses = np.zeros((50, 8), np.float32)
    poses[:, :3], poses[:, 7] = rng.standard_normal((50, 3)), rng.random(50)
    quaternions = np.stack([euler2quat(*rng.uniform(-3, 3, 3)) for _ in range(50)])
    poses[:, 3:7] = quaternions[:, [1, 2, 3, 0]]
    again = space.decode(space.encode(poses))
    np.testing.assert_allclose(again[:, [0, 1, 2, 7]], poses[:, [0, 1, 2, 7]], atol=1e-6)
    same = np.abs((again[:, 3:7] * poses[:, 3:7]).sum(axis=1))
    np.testing.assert_allclose(same, 1.0, atol=1e-5, err_msg="q and -q are one rotation")
    # Half a turn about z and a hair more: the quaternion of smallest angle changes its sign, the six numbers do not.
    near = [np.array([0, 0, 0, *euler2quat(0, 0, angle)[[1, 2, 3, 0]], 0]) for angle in (np.pi - 1e-3, -np.pi + 1e-3)]
    first, second = (space.encode(np.asarray(pose, np.float32)[None]) for pose in near)
    assert np.abs(first - second).max() < 5e-3


def test_quaternions_of_a_chunk_keep_their_side() -> None:
    """A hand that points down is half a turn off, where the quaternion of positive w jumps to its opposite."""
    space = ActionSpace(POSE, 7)
    poses = np.zeros((2, 9, 7), np.float32)
    for step, angle in enumerate(np.pi + np.linspace(-0.2, 0.2, 9)):
        poses[:, step, 3:] = euler2quat(angle, 0.3, 0)[[1, 2, 3, 0]] * (-1) ** step
    chunks = space.decode(space.encode(poses))
    assert np.abs(np.diff(chunks[..., 3:], axis=1)).max() < 0.05
    np.testing.assert_allclose(np.abs((chunks[..., 3:] * poses[..., 3:]).sum(axis=-1)), 1.0, atol=1e-5)
    np.testing.assert_array_equal(space.decode(space.encode(poses[0, 0]))[:3], poses[0, 0, :3])


def test_a_quaternion_of_length_0_is_no_demonstration() -> None:
    pose = dataclasses.replace(INTERFACE, action=Action("ee_pose", "pose", "target", POSE, 20.0))
    action = np.tile(np.array([0, 0, 0, 0, 0, 0, 2], np.float32), (24, 1))
    good = dataclasses.replace(demonstrations(1)[0], action=action)
    check_demonstrations([good], pose, use_state=False)
    action = action.copy()
    action[5, 6] = 0
    with pytest.raises(ComoError, match="left#0: step 5: the orientation is a quaternion of length 0"):
        check_demonstrations([dataclasses.replace(good, action=action)], pose, use_state=False)


def test_six_numbers_that_are_no_rotation_become_one() -> None:
    space = ActionSpace(POSE, 7)
    made = space.decode(np.random.default_rng(1).standard_normal((20, 9)).astype(np.float32))
    for pose in made:
        matrix = quat2mat(pose[[6, 3, 4, 5]])
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-5)


def test_other_actions_pass_as_they_are() -> None:
    space = ActionSpace.of(INTERFACE)
    values = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    assert space.size == 3
    np.testing.assert_array_equal(space.decode(space.encode(values)), values)
