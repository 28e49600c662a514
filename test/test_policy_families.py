"""Both families, every way of co-training: what they learn from, what they must not; caches change nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_data import GOALS, INTERFACE, config, demonstrations, episode, picture, videos

from como_core.action_chunk import Observation
from como_core.errors import ComoError
from como_core.policy import guard
from como_core.policy.checkpoint import load_policy
from como_core.policy.config import Family, PolicyConfig, load_preset
from como_core.policy.cotraining import CotrainingMode, keep_labels
from como_core.policy.guard import Verdict, watch
from como_core.policy.model import PolicyModel, Sizes
from como_core.policy.train import train

FAMILIES: tuple[Family, ...] = ("diffusion", "autoregressive")
MODES: tuple[CotrainingMode, ...] = ("none", "decoded", "heads", "joint")
SIZES = Sizes(pictures=1, text=2, state=2, action=3, latent=6)


def batch(size: int = 6, seed: int = 0) -> dict[str, object]:
    """Random windows; the first half labelled, the second half video."""
    generator = torch.Generator().manual_seed(seed)
    half = (torch.arange(size) < size // 2).float()
    images = torch.randint(0, 255, (size, 1, 16, 16, 3), dtype=torch.uint8, generator=generator)
    return {"observation": {"images": images, "instruction": torch.eye(2)[torch.arange(size) % 2]},
            "action": torch.randn(size, 4, 3, generator=generator), "action_weight": half[:, None].expand(-1, 4),
            "latent": torch.randn(size, 4, 6, generator=generator), "latent_weight": torch.ones(size, 4)}


def settings(family: Family, mode: CotrainingMode, **options: object) -> PolicyConfig:
    given = config(mode, family=family)
    return dataclasses.replace(given, cotraining=dataclasses.replace(given.cotraining, **options))


def losses(model: PolicyModel, given: dict[str, object]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found: dict[str, torch.Tensor] = model(given)
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", MODES)
def test_an_unknown_action_is_never_read(family: Family, mode: CotrainingMode) -> None:
    """Whatever stands where no action is known, loss and gradient are the same."""
    torch.manual_seed(0)
    model = PolicyModel(settings(family, mode), SIZES)
    awake(model)
    given = batch()
    poisoned = {**given, "action": given["action"] + 100.0 * (1 - given["action_weight"])[..., None]}  # type: ignore[operator,index]
    first, second = losses(model, given), losses(model, poisoned)
    if mode in ("none", "decoded"):
        poisoned["latent"] = given["latent"] + 100.0  # type: ignore[operator]
        second = losses(model, poisoned)
    torch.testing.assert_close(second["loss"], first["loss"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["heads", "joint"])
def test_video_without_actions_trains_the_trunk(family: Family, mode: CotrainingMode) -> None:
    torch.manual_seed(0)
    model = PolicyModel(settings(family, mode), SIZES)
    awake(model)
    given = batch()
    given["action_weight"] = torch.zeros(6, 4)
    found = losses(model, given)
    assert found["action"] == 0 and found["latent"] > 0
    found["loss"].backward()
    moved = {name.split(".")[0] for name, p in model.named_parameters()
             if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {"encoder", "head"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("mode", "given", "weight"), [("heads", {}, 1.0), ("joint", {}, 0.3),
                                                       ("heads", {"latent_weight": 0.5}, 0.5)])
def test_latents_weigh_what_tuning_found(family: Family, mode: CotrainingMode, given: dict[str, float], weight: float
                                         ) -> None:
    torch.manual_seed(0)
    model = PolicyModel(settings(family, mode, **given), SIZES)
    awake(model)
    found = losses(model, batch())
    torch.testing.assert_close(found["loss"], found["action"] + weight * found["latent"])


@pytest.mark.parametrize("split", ["trunk", "encoder"])
def test_heads_share_what_the_split_says(split: str) -> None:
    torch.manual_seed(0)
    model = PolicyModel(settings("diffusion", "heads", split=split), SIZES)
    awake(model)
    losses(model, batch())["latent"].backward()
    touched = [name for name, p in model.head.denoiser.trunk.named_parameters()
               if p.grad is not None and p.grad.abs().sum() > 0]
    assert bool(touched) == (split == "trunk")


@pytest.mark.parametrize("mode", MODES)
def test_cached_keys_and_values_give_what_the_whole_sequence_gives(mode: CotrainingMode) -> None:
    """Fed with its own predictions as the true steps, training's pass over the chunk must say the same."""
    torch.manual_seed(0)
    model = PolicyModel(settings("autoregressive", mode), SIZES).eval()
    awake(model)
    given = batch()
    observation = given["observation"]
    chunk = model.sample(observation)  # type: ignore[arg-type]
    head = model.head
    seen: list[torch.Tensor] = []
    original = head.trunk.forward

    def record(tokens: torch.Tensor, condition: torch.Tensor, cache: object = None) -> torch.Tensor:
        seen.append(tokens)
        return original(tokens, condition, cache)

    head.trunk.forward = record  # type: ignore[method-assign]
    again = model.sample(observation)  # type: ignore[arg-type]
    with torch.no_grad():
        context = model.encoder(**observation)  # type: ignore[arg-type]
        whole = original(torch.cat(seen, 1), torch.nn.functional.silu(context))
    predicted = head.action_out(whole[:, 1::2] if mode == "joint" else whole)
    torch.testing.assert_close(again, chunk)
    torch.testing.assert_close(predicted, chunk, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_is_kept_and_continued(family: Family) -> None:
    torch.manual_seed(0)
    model = PolicyModel(settings(family, "none"), SIZES).eval()
    awake(model)
    observation = batch(2)["observation"]
    prefix = torch.full((2, 2, 3), 1.5)
    free, held = model.sample(observation), model.sample(observation, prefix)  # type: ignore[arg-type]
    torch.testing.assert_close(held[:, :2], prefix)
    assert not torch.allclose(held[:, 2:], free[:, 2:]), "what follows must know of it"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", MODES)
def test_every_family_and_mode_learns_and_steers(family: Family, mode: CotrainingMode, tmp_path: Path) -> None:
    given = config(mode, steps=250, family=family)
    films = videos(4) if mode != "none" else []
    found = load_policy(train(demonstrations(4), films, INTERFACE, given, tmp_path).directory)
    for name, (goal, _) in GOALS.items():
        side = np.array([1.0 - goal, 0.5])
        speed = found.predict(Observation(0.0, {"front": picture(side)}, None, name)).values[:, 0].mean()
        assert np.sign(speed) == np.sign(goal - side[0]) and abs(speed) > 0.4, (name, speed)


def test_a_batch_of_observations_gives_what_each_alone_gives(tmp_path: Path) -> None:
    found = load_policy(train(demonstrations(), [], INTERFACE, config("none"), tmp_path).directory)
    asked = [Observation(0.0, {"front": picture(np.array([x, 0.4]))}, None, name) for x in (0.2, 0.7) for name in GOALS]
    together = found.predict_batch(asked)
    for observation, chunk in zip(asked, together, strict=True):
        np.testing.assert_allclose(chunk.values, found.predict(observation).values, atol=1e-5)


def test_earlier_pictures_are_seen_and_must_be_given(tmp_path: Path) -> None:
    given = config("none")
    given = dataclasses.replace(given, observation=dataclasses.replace(given.observation, history_s=(0.05, 0.1)))
    found = load_policy(train(demonstrations(), [], INTERFACE, given, tmp_path).directory)
    now, before = {"front": picture(np.array([0.5, 0.5]))}, {"front": picture(np.array([0.2, 0.5]))}
    assert found.history_s == (0.05, 0.1)
    still = found.predict(Observation(0.0, now, None, "left", past=(now, now))).values
    moving = found.predict(Observation(0.0, now, None, "left", past=(now, before))).values
    assert not np.allclose(still, moving)
    with pytest.raises(ComoError, match="pictures of 1 moments.*trained on 3"):
        found.predict(Observation(0.0, now, None, "left"))


def test_a_share_of_the_labels_leaves_the_rest_as_video() -> None:
    demos = demonstrations(5)
    for share, count in ((1.0, 10), (0.4, 4), (0.05, 2), (0.0, 0)):
        kept, freed, lost = keep_labels(demos, share)
        assert (len(kept), len(freed), lost) == (count, 10 - count, [])
        assert all(film.action is None and film.latent is not None for film in freed)
        assert {e.instruction for e in kept} == (set(GOALS) if count else set())
    with pytest.raises(ComoError, match=r"\[0, 1\], got 1.5"):
        keep_labels(demos, 1.5)
    without = [dataclasses.replace(demo, latent=None) for demo in demos]
    kept, freed, lost = keep_labels(without, 0.4)
    assert freed == [] and lost == [e for e in without if not any(e is one for one in kept)], (
        "without latents it is no video, and is not forgotten")


@pytest.mark.parametrize("mode", ["heads", "joint"])
def test_demonstrations_with_latents_need_no_further_video(mode: CotrainingMode, tmp_path: Path) -> None:
    """Of all labels: actions and latents of the same recordings are learnt, each beside the other."""
    done = train(demonstrations(2), [], INTERFACE, config(mode, steps=100), tmp_path)
    assert done.history.terms["latent"][-1] < 0.8 * done.history.terms["latent"][0]
    assert load_policy(tmp_path).instructions == ("left", "right") and "video: 0 clips" in "".join(done.notes())
    bare = [dataclasses.replace(demo, latent=None, confidence=None) for demo in demonstrations(2)]
    with pytest.raises(ComoError, match="no labelled video to co-train on: nothing with latents was given;"):
        train(bare, [], INTERFACE, config(mode), tmp_path / "bare")
    with pytest.raises(ComoError, match="no labelled video to co-train on: nothing with latents was given besides"):
        train(demonstrations(2), [], INTERFACE, config("decoded"), tmp_path / "decoded")


def test_actions_that_a_video_brings_along_are_not_read(tmp_path: Path) -> None:
    """Video of another robot, or pseudo-labelled by somebody else: in `heads` only latents count."""
    lying = [dataclasses.replace(episode(name, 100 + seed), action=np.full((24, 3), 50.0, np.float32), state=None)
             for name in GOALS for seed in range(3)]
    honest = [film.as_video() for film in lying]
    runs = [train(demonstrations(), films, INTERFACE, config("heads", steps=8), tmp_path / str(i))
            for i, films in enumerate((lying, honest))]
    assert runs[0].history.loss == runs[1].history.loss


def awake(model: PolicyModel) -> None:
    """Layers that begin at zero would hide what they read."""
    for parameter in model.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize("honest", [True, False])
def test_the_guard_tells_helpful_video_from_harmful(honest: bool, tmp_path: Path) -> None:
    """Reversed latents decode into actions that lead away from the goal."""
    given = settings("diffusion", "decoded", guard_steps=150)
    films = [film if honest else dataclasses.replace(film, latent=-film.latent) for film in videos(8)]  # type: ignore[operator]
    done = train(demonstrations(3), films, INTERFACE, given, tmp_path)
    assert done.verdict is not None and done.verdict.episodes == 2
    said = "\n".join(done.notes())
    assert "2 left-out demonstrations after 150 steps" in said
    assert done.verdict.harmful != honest and ("NEGATIVE TRANSFER" in said) != honest
    assert ("NEGATIVE TRANSFER" in (tmp_path / "card.md").read_text()) != honest


def test_the_guard_says_no_more_than_so_few_demonstrations_tell() -> None:
    """Of two, the interval is wide: then what holds on each of them and is large counts."""
    def verdict(*differences: float) -> Verdict:
        errors = iter([np.array(differences) + 1.0, np.ones(len(differences))])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(guard, "_errors", lambda *_: next(errors))
            return watch(lambda with_video: (), [(0, 1)] * len(differences), 10)  # type: ignore[arg-type,return-value]

    assert verdict(0.3, 0.5).harmful and verdict(-0.3, -0.5).helpful
    assert "helps on each of them, though they are too few" in verdict(-0.3, -0.5).lines()[0]
    for neither in (verdict(0.01, 0.03), verdict(0.9, -0.1), verdict(0.5), verdict(-0.5), verdict(-0.01, -0.03)):
        assert not neither.harmful and not neither.helpful and "no difference that they show" in neither.lines()[0]
    assert "[of one there is no interval], worse on 1 of 1" in verdict(0.5).lines()[0]
    seems = verdict(0.3, 0.5, -0.1)
    assert seems.doubtful and not seems.harmful and "the video may make it worse" in seems.lines()[0]
    assert "try another co-training mode" in seems.lines()[1]
    for clear in (verdict(0.9, -0.1), verdict(0.05, 0.06, -0.1), verdict(0.3, 0.5), verdict(0.5)):
        assert not clear.doubtful
    several = verdict(0.04, 0.05, 0.06, 0.05)
    assert several.harmful and several.low > 0, "by its interval, though it is little"
    assert several.lines()[0].endswith("NEGATIVE TRANSFER, the video makes it worse")
    found = verdict(0.3, 0.5, -0.1)
    half = 4.3027 * np.std([0.3, 0.5, -0.1], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([found.low, found.high], np.mean([0.3, 0.5, -0.1]) + np.array([-half, half]))


def test_the_guard_does_not_read_latents_without_confidence(tmp_path: Path) -> None:
    given, errors = settings("diffusion", "decoded", guard_steps=10), []
    for poison in (0.0, 1e3):
        films = videos(2)
        for film in films:
            assert film.latent is not None and film.confidence is not None
            film.latent[film.confidence == 0] += poison
        verdict = train(demonstrations(2), films, INTERFACE, given, tmp_path / str(poison)).verdict
        assert verdict is not None
        errors.append(verdict.with_video)
    assert errors[0] == errors[1]


def test_the_guard_is_silent_where_nothing_can_be_left_out(tmp_path: Path) -> None:
    given = settings("diffusion", "decoded", guard_steps=5)
    assert train(demonstrations(1), videos(), INTERFACE, given, tmp_path).verdict is None


def test_motion_is_learnt_without_any_label_and_gone_on_with(tmp_path: Path) -> None:
    given = config("heads", steps=60)
    motion = train([], videos(6), INTERFACE, given, tmp_path / "motion")
    asked = Observation(0.0, {"front": picture(np.array([0.5, 0.5]))}, None, "left")
    with pytest.raises(ComoError, match="without any action.*--start-from"):
        load_policy(motion.directory).predict(asked)
    begun = train(demonstrations(2), videos(6), INTERFACE, given, tmp_path / "begun", start_from=motion.directory)
    fresh = train(demonstrations(2), videos(6), INTERFACE, given, tmp_path / "fresh")
    assert begun.history.terms["latent"][0] < 0.8 * fresh.history.terms["latent"][0], "it begins where motion ended"
    assert load_policy(begun.directory).predict(asked).values.shape == (4, 3)
    with pytest.raises(ComoError, match="no demonstrations"):
        train([], videos(), INTERFACE, config("decoded"), tmp_path / "decoded")
    with pytest.raises(ComoError, match="different runs|another"):
        train(demonstrations(2), [], INTERFACE, config("none"), tmp_path / "other", start_from=motion.directory)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_full_size_takes_a_training_step(family: Family) -> None:
    model = PolicyModel(load_preset(family, "joint", size="full"), dataclasses.replace(SIZES, pictures=2))
    count = sum(p.numel() for p in model.parameters())
    assert 120e6 < count < 260e6, f"{count / 1e6:.0f} M parameters"
    observation = {"images": torch.randint(0, 255, (2, 2, 128, 128, 3), dtype=torch.uint8), "instruction": torch.eye(2)}
    steps = {"action": (16, 3), "action_weight": (16,), "latent": (16, 6), "latent_weight": (16,)}
    given = {name: torch.ones(2, *shape) for name, shape in steps.items()}
    found = losses(model, {"observation": observation, **given})
    found["loss"].backward()
    assert torch.isfinite(found["loss"]) and all(p.grad is not None for p in model.head.parameters() if p.requires_grad)
