"""A robot small enough to train in seconds: a bright square on a 16-pixel picture that follows a commanded velocity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from como_core.episode import Episode
from como_core.interface import Action, Camera, Gripper, Interface, StateStream
from como_core.policy.action_space import ActionSpace
from como_core.policy.checkpoint import TrainedConfig, build_model, save_policy
from como_core.policy.config import DiffusionConfig, Family, PolicyConfig
from como_core.policy.cotraining import CotrainingConfig, CotrainingMode
from como_core.policy.decoder import DecoderConfig
from como_core.policy.diffusion import SamplerName
from como_core.policy.network import NetworkConfig
from como_core.policy.normaliser import Affine, Normaliser
from como_core.policy.observation import ObservationConfig
from como_core.policy.text import Vocabulary
from como_core.training.loop import LoopConfig

SIZE, RATE_HZ, LATENT = 16, 20.0, 6
GOALS = {"left": (0.2, 0.5), "right": (0.8, 0.5)}
MIXING = np.random.default_rng(7).standard_normal((2, LATENT))

INTERFACE = Interface(
    name="square", cameras={"front": Camera("image", SIZE, SIZE, RATE_HZ, 0.3)},
    action=Action("ee_twist", "servo_twist", "twist", ("linear.x", "linear.y"), RATE_HZ, gripper=Gripper("gripper")),
    state={"pose": StateStream("pose", "geometry_msgs/msg/PoseStamped", ("position.x", "position.y"), RATE_HZ, 0.3)})

SPACE = ActionSpace.of(INTERFACE)


def picture(place: np.ndarray) -> np.ndarray:
    """The square at `place` in [0, 1]^2, uint8 [SIZE, SIZE, 3]."""
    image = np.full((SIZE, SIZE, 3), 30, np.uint8)
    x, y = np.round(place * (SIZE - 4)).astype(int)
    image[y:y + 4, x:x + 4] = 250
    return image


def episode(instruction: str, seed: int, steps: int = 24) -> Episode:
    """Noisily towards the instruction's goal; the gripper shut for "left" only; z a noisy mixture of the velocity."""
    rng = np.random.default_rng((seed, len(instruction)))
    place, images, states, actions = rng.uniform(0.1, 0.9, 2), [], [], []
    for _ in range(steps):
        velocity = np.clip(4.0 * (GOALS[instruction] - place), -1, 1) + 0.3 * rng.standard_normal(2)
        images.append(picture(place))
        states.append(place)
        actions.append([*velocity, float(instruction == "left")])
        place = np.clip(place + velocity / RATE_HZ, 0, 1)
    action = np.array(actions, np.float32)
    latent = action[:, :2] @ MIXING + 0.05 * rng.standard_normal((steps, LATENT))
    confidence = np.ones(steps, np.float32)
    confidence[-2:] = 0  # no later frame to look at
    return Episode(np.arange(steps) / RATE_HZ, {"front": np.stack(images)}, f"{instruction}#{seed}",
                   state=np.array(states, np.float32), action=action, latent=latent.astype(np.float32),
                   confidence=confidence, instruction=instruction)


def demonstrations(count: int = 2) -> list[Episode]:
    """`count` labelled episodes of each instruction."""
    return [episode(name, seed) for name in GOALS for seed in range(count)]


def videos(count: int = 4) -> list[Episode]:
    """`count` episodes of each instruction without state and action."""
    return [episode(name, 100 + seed).as_video() for name in GOALS for seed in range(count)]


def config(mode: CotrainingMode = "none", steps: int = 30, state: bool = False, sampler: SamplerName = "flow",
           save_every: int = 10, family: Family = "diffusion") -> PolicyConfig:
    """A policy that trains in a second or two."""
    return PolicyConfig(
        LoopConfig(steps=steps, batch_size=16, learning_rate=3e-3, warmup_steps=5, ema_decay=0.9, save_every=save_every,
                   log_every=1),
        observation=ObservationConfig(SIZE, (16, 16, 16), 8, 32, state), family=family,
        network=NetworkConfig("transformer", 32, 2, 2), diffusion=DiffusionConfig(sampler, 6),
        cotraining=CotrainingConfig(mode, decoder=DecoderConfig(lags_s=(-0.05, 0.0), members=2, steps=150, hidden=16)),
        chunk_steps=4, shift_px=0)


def untrained(folder: Path, interface: Interface = INTERFACE, instructions: tuple[str, ...] = ("left", "right"),
              given: PolicyConfig | None = None, action: Affine | None = None, seed: int = 0,
              noise: float = 0.0) -> Path:
    """A checkpoint with fresh weights: its actions are the mean of `action`, unless there is noise on the weights."""
    scales = Normaliser(action or Affine.identity(ActionSpace.of(interface).size))
    trained = TrainedConfig(given or config(), instructions)
    torch.manual_seed(seed)
    model = build_model(trained.policy, Vocabulary(instructions), interface, scales)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return save_policy(folder, model, trained, interface, scales, "untrained")
