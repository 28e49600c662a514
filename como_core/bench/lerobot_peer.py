"""One of LeRobot's policies, to be timed beside ours. Run by the Python of an environment that has LeRobot:

    python como_core/bench/lerobot_peer.py diffusion --size 96 --horizon 16 --batch 8

A first line of JSON says what was built. Then each line on the standard input, `train` or `infer`, is answered by the
seconds that one training step, or one chunk for one observation, took. Random pictures, states and actions; the
weights are random too, which changes no time. What LeRobot's processors do beforehand is not counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def declare_torchvision_operators() -> None:
    """Let torchvision be imported where its compiled operators do not load, as its CUDA build does beside a torch
    without CUDA: the policies use none of them, but the import asks for their names.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        sys.exit("torchvision is not installed in this environment; LeRobot needs it")
    folder = Path(found.submodule_search_locations[0])
    try:
        torch.ops.load_library(str(next(folder.glob("_C*.so"))))
        return
    except (OSError, StopIteration):
        library = torch.library.Library("torchvision", "DEF")
    text = "".join((folder / name).read_text() for name in ("_meta_registrations.py", "_autograd_registrations.py")
                   if (folder / name).is_file())
    for name in sorted(set(re.findall(r'(?:torchvision::|register_meta\(")(\w+)', text))):
        library.define(f"{name}(Tensor x) -> Tensor")
    declare_torchvision_operators.library = library  # type: ignore[attr-defined]  # it lives as long as the process


def build(kind: str, size: int, horizon: int) -> tuple[Any, dict[str, Any]]:
    """The policy and its settings, defaults but for the horizon and, for ACT, weights from the internet."""
    from lerobot.configs.types import FeatureType, PolicyFeature

    shapes: dict[str, Any] = {
        "input_features": {"observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, size, size)),
                           "observation.state": PolicyFeature(FeatureType.STATE, (2,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (2,))}, "device": "cpu"}
    if kind == "act":
        from lerobot.policies.act.configuration_act import ACTConfig
        from lerobot.policies.act.modeling_act import ACTPolicy

        given: dict[str, Any] = {"chunk_size": horizon, "n_action_steps": horizon, "pretrained_backbone_weights": None}
        return ACTPolicy(ACTConfig(**shapes, **given)), given
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    given = {"horizon": horizon, "crop_shape": None}
    if kind == "diffusion-ddim":
        given |= {"noise_scheduler_type": "DDIM", "num_inference_steps": 10}
    return DiffusionPolicy(DiffusionConfig(**shapes, **given)), given


def batch_of(kind: str, count: int, size: int, horizon: int) -> dict[str, torch.Tensor]:
    """Random inputs as the policy's `forward` takes them."""
    past = () if kind == "act" else (2,)  # diffusion looks at two moments
    return {"observation.images.top": torch.rand(count, *past, 3, size, size),
            "observation.state": torch.rand(count, *past, 2),
            "action": torch.rand(count, horizon, 2) * 2 - 1,
            "action_is_pad": torch.zeros(count, horizon, dtype=torch.bool)}


def chunk_maker(policy: Any, kind: str, size: int, horizon: int) -> Callable[[], Any]:
    """A function that makes one chunk for one observation."""
    given = {name: value for name, value in batch_of(kind, 1, size, horizon).items() if name.startswith("obs")}
    if kind == "act":
        return lambda: policy.predict_action_chunk(given)
    # The queue of `predict_action_chunk` holds the two moments; the model below it takes them as they are.
    stacked = {"observation.state": given["observation.state"],
               "observation.images": given["observation.images.top"][:, :, None]}
    return lambda: policy.diffusion.generate_actions(stacked)


def main() -> None:
    """Build, say what was built, and answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("diffusion", "diffusion-ddim", "act"))
    parser.add_argument("--size", type=int, required=True, help="pixels of the square picture")
    parser.add_argument("--horizon", type=int, required=True, help="steps of a chunk")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    declare_torchvision_operators()
    torch.manual_seed(0)
    policy, given = build(options.kind, options.size, options.horizon)
    batch = batch_of(options.kind, options.batch, options.size, options.horizon)
    chunk = chunk_maker(policy, options.kind, options.size, options.horizon)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-4)

    def train() -> None:
        policy.train()
        loss = policy.forward(batch)[0]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimiser.step()

    def infer() -> None:
        policy.eval()
        with torch.inference_mode():
            chunk()

    print(json.dumps({"kind": options.kind, "parameters": sum(p.numel() for p in policy.parameters()),
                      "lerobot": version("lerobot"), "torch": torch.__version__, "settings": given}), flush=True)
    for line in sys.stdin:
        work = {"train": train, "infer": infer}[line.strip()]
        start = time.perf_counter()
        work()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
