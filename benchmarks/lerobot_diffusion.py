"""LeRobot's diffusion policy, trained on recordings and asked for chunks. Run by the Python of an environment that has
LeRobot, with the path of this project's como_core/bench:

    PYTHONPATH=como_core/bench python benchmarks/lerobot_diffusion.py recordings.npz checkpoint.pt --steps 2000

Its defaults but for the size of its convolutions, one moment instead of two, and no cropping. It trains where
checkpoint.pt is not there yet; a line of JSON says what was built. Then it answers: an observation of several trials
(npz of images uint8 [B, H, W, 3] and state [B, S], its length before it) with their chunks (npz of action [B, K, A]).
"""

from __future__ import annotations

import argparse
import io
import json
import struct
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

HORIZON = 16
DOWN_DIMS = (64, 128, 256)
IMAGE, STATE, ACTION = "observation.images.top", "observation.state", "action"


def send(stream: IO[bytes], **arrays: np.ndarray) -> None:
    """Arrays by name, after the number of bytes."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    stream.write(struct.pack("<Q", packed.tell()) + packed.getvalue())
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, np.ndarray] | None:
    """What `send` sent; None at the end."""
    head = stream.read(8)
    return dict(np.load(io.BytesIO(stream.read(struct.unpack("<Q", head)[0])))) if len(head) == 8 else None


def windows(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N, HORIZON] of the actions from each step on, and which of them lie behind the end (the last is repeated).

    As LeRobot draws them: not from the last steps, after which there are fewer actions than are carried out.
    """
    ends = np.cumsum(lengths)
    rows = [(start + np.arange(HORIZON), end) for begin, end in zip(ends - lengths, ends, strict=True)
            for start in range(begin, max(begin + 1, end - HORIZON // 2))]
    wanted, last = np.stack([row for row, _ in rows]), np.array([[end - 1] for _, end in rows])
    return np.minimum(wanted, last), wanted > last


class Peer:
    """The policy with its scales, and its training."""

    def __init__(self, stored: dict[str, np.ndarray]) -> None:
        from lerobot.configs.types import FeatureType, PolicyFeature
        from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
        from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
        from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

        _, height, width, _ = stored["images"].shape
        self._stored = stored
        config = DiffusionConfig(
            n_obs_steps=1, horizon=HORIZON, n_action_steps=HORIZON, down_dims=DOWN_DIMS, crop_shape=None, device="cpu",
            input_features={IMAGE: PolicyFeature(FeatureType.VISUAL, (3, height, width)),
                            STATE: PolicyFeature(FeatureType.STATE, stored["state"].shape[1:])},
            output_features={ACTION: PolicyFeature(FeatureType.ACTION, stored["action"].shape[1:])})
        self.policy = DiffusionPolicy(config)
        self._before, self._after = make_diffusion_pre_post_processors(config, _statistics(stored))
        self._config = config

    def train(self, steps: int, batch: int, seed: int) -> float:
        """Train as LeRobot's script does: AdamW, a linear warm-up and a cosine. Seconds that it took."""
        from lerobot.optim.schedulers import DiffuserSchedulerConfig

        rng, start = np.random.default_rng(seed), time.perf_counter()
        rows, padded = windows(self._stored["lengths"])
        optimiser = self._config.get_optimizer_preset().build(self.policy.get_optim_params())
        warmup = min(self._config.scheduler_warmup_steps, steps // 10)
        scheduler = DiffuserSchedulerConfig(name=self._config.scheduler_name, num_warmup_steps=warmup).build(optimiser,
                                                                                                          steps)
        self.policy.train()
        for step in range(steps):
            chosen = rng.integers(0, len(rows), batch)
            now = rows[chosen, 0]
            ready = self._before({**self._seen(self._stored["images"][now], self._stored["state"][now]),
                                  ACTION: torch.from_numpy(self._stored["action"][rows[chosen]])})
            ready = {name: ready[name] for name in (IMAGE, STATE, ACTION)}
            ready[STATE] = ready[STATE][:, None]  # one moment
            loss, _ = self.policy.forward({**ready, "action_is_pad": torch.from_numpy(padded[chosen])})
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 10.0)
            optimiser.step()
            scheduler.step()
            if step % 50 == 0:
                print(f"LeRobot: step {step}/{steps}, loss {loss.item():.4f}, {time.perf_counter() - start:.0f} s",
                      file=sys.stderr, flush=True)
        return time.perf_counter() - start

    def chunk(self, images: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Actions [B, HORIZON, A], in the units of the recordings."""
        ready = self._before(self._seen(images, state))
        with torch.inference_mode():
            found = self.policy.diffusion.generate_actions({STATE: ready[STATE][:, None],
                                                            "observation.images": ready[IMAGE][:, None, None]})
        return np.asarray(self._after(found).numpy())

    @staticmethod
    def _seen(images: np.ndarray, state: np.ndarray) -> dict[str, torch.Tensor]:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return {IMAGE: pixels, STATE: torch.from_numpy(state)}


def _statistics(stored: dict[str, np.ndarray]) -> dict[str, Any]:
    pixels = stored["images"][::10].astype(np.float32) / 255
    colour = {"mean": torch.tensor(pixels.mean(axis=(0, 1, 2))).view(3, 1, 1),
              "std": torch.tensor(pixels.std(axis=(0, 1, 2))).view(3, 1, 1)}
    return {IMAGE: colour, **{name: {"min": torch.tensor(stored[key].min(axis=0)),
                                     "max": torch.tensor(stored[key].max(axis=0))}
                              for name, key in ((STATE, "state"), (ACTION, "action"))}}


def main() -> None:
    """Train or load, say what there is, and answer."""
    from lerobot_peer import declare_torchvision_operators  # type: ignore[import-not-found]  # of como_core/bench

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, help="as benchmarks/episodes.py writes them")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    declare_torchvision_operators()
    torch.manual_seed(options.seed)
    peer = Peer(dict(np.load(options.recordings)))
    if not options.checkpoint.is_file():
        took = peer.train(options.steps, options.batch, options.seed)
        torch.save({"weights": peer.policy.state_dict(), "seconds": took}, options.checkpoint)
    found = torch.load(options.checkpoint, weights_only=True)
    peer.policy.load_state_dict(found["weights"])
    peer.policy.eval()
    print(json.dumps({"parameters": sum(p.numel() for p in peer.policy.parameters()), "seconds": found["seconds"]}),
          flush=True)
    while (asked := receive(sys.stdin.buffer)) is not None:
        send(sys.stdout.buffer, action=peer.chunk(asked["images"], asked["state"]))


if __name__ == "__main__":
    main()
