"""replay: does the live node say what training says?

    ros2 run como_ros replay --bag bags/episode_0003 --policy runs/policy

The real policy_node, a process of its own, gets the bag's cameras and states over DDS, on the bag's clock. Each chunk
that it predicts is compared with what the same checkpoint says offline of the same frame, read as training reads it.
The node's output stays disabled, and all of it is on a ROS domain of its own, on this machine.

Exit code: 0 within the tolerance, 1 outside of it or where too few frames were answered, 2 for input that cannot be
used.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from como_core.action_chunk import ActionChunk, Observation, Policy
from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.evaluation.parity import Parity, compare
from como_core.formats.bag_reader import BagReader
from como_core.formats.rosbag import frame_stamps_ns, note_of, read_bag
from como_core.interface import Interface, load_interface, require_same
from como_core.training.checkpoint import INTERFACE
from como_ros.chunk_topic import GRIPPER
from como_ros.policy_node import load_checkpoint
from como_ros.processes import NodeProcess
from como_ros.replay_session import SAME_STAMP_NS, Session

# Next to the demo's; only what replays there hears it.
DOMAIN = 78
# Above it the ports of DDS are no port numbers any more.
LARGEST_DOMAIN = 232
# Of the frames that training would use; the first few may come before the node has every stream.
MIN_SHARE = 0.8


@dataclass(frozen=True)
class Options:
    """What `replay` is asked to do; see the command's help."""

    bag: Path
    policy: Path
    tolerance: float = 1e-3
    device: str = "cpu"
    domain: int = DOMAIN
    chunk_timeout_s: float = 5.0
    start_timeout_s: float = 120.0
    node: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What keeps the replay to itself: its domain, and this machine."""
        return {"ROS_DOMAIN_ID": str(self.domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def replay(options: Options) -> Parity:
    """Run the node on the bag and compare. Raises ComoError where bag, policy or domain cannot be used."""
    if not options.tolerance >= 0:
        raise ComoError(f"--tolerance {options.tolerance:g}: expected 0 or more, in the action's units")
    if not 0 <= options.domain <= LARGEST_DOMAIN:
        raise ComoError(f"--domain {options.domain}: expected a ROS domain from 0 to {LARGEST_DOMAIN}")
    if not options.policy.is_dir():
        raise ComoError(f"policy {options.policy}: no such folder (expected a checkpoint of `como policy train`)")
    interface = load_interface(options.policy / INTERFACE)
    note = note_of(options.bag)
    if note.interface is not None:
        require_same(interface, note.interface, f"the checkpoint {options.policy}", f"the bag {options.bag}")
    with ExitStack() as stack:
        bag = stack.enter_context(BagReader(options.bag))
        os.environ.update(options.environment)
        session = stack.enter_context(Session(interface, bag, options.domain))
        session.require_alone()
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="como_replay_"))) / "policy_node.log"
        parameters = _parameters(options, interface, note.instruction)
        node = stack.enter_context(NodeProcess("policy_node", parameters, log, options.environment,
                                               program=options.node))
        # The node loads the checkpoint meanwhile.
        policy = load_checkpoint(options.policy, options.device)
        episode = read_bag(options.bag, interface)
        # What the policy refuses offline, such as an instruction that it does not know, it refuses in the node.
        _offline(policy, episode, 0)
        session.wait_active(node, options.start_timeout_s)
        answers = session.play(node, options.chunk_timeout_s)
    return _compared(options, policy, episode, answers)


def _parameters(options: Options, interface: Interface, instruction: str | None) -> dict[str, object]:
    fastest_hz = max(camera.rate_hz for camera in interface.cameras.values())
    return {
        "policy": options.policy.absolute(), "interface": (options.policy / INTERFACE).absolute(),
        "device": options.device, "instruction": instruction or "", "use_sim_time": True, "autostart": True,
        "enable_output": False,
        # Every frame is asked for, and however long a busy machine takes over one, no stream is called stale for it.
        "replan_hz": float(min(fastest_hz, 100.0)), "rate_factor": 0.01,
    }


def _compared(options: Options, policy: Policy, episode: Episode, answers: Sequence[tuple[int, ActionChunk]]) -> Parity:
    """Answers, each with the stamp of its observation, beside what the policy says of the frame of that stamp."""
    stamps_ns = frame_stamps_ns(episode)
    served: dict[int, ActionChunk] = {}
    unmatched = 0
    for stamp_ns, chunk in answers:
        frame = int(np.argmin(np.abs(stamps_ns - stamp_ns)))
        if abs(int(stamps_ns[frame]) - stamp_ns) < SAME_STAMP_NS:
            served[frame] = chunk
        else:
            unmatched += 1
    action = policy.interface.action
    names = [*action.names, *([GRIPPER] if action.gripper else [])]
    return compare(names, {frame: _offline(policy, episode, frame) for frame in served}, served, len(episode),
                   unmatched, options.tolerance, MIN_SHARE)


def _offline(policy: Policy, episode: Episode, frame: int) -> ActionChunk:
    images = {name: frames[frame] for name, frames in episode.images.items()}
    state = None if episode.state is None else episode.state[frame]
    return policy.predict(Observation(float(episode.timestamps[frame]), images, state, episode.instruction))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    text, _, codes = (__doc__ or "").partition("Exit code:")
    found = argparse.ArgumentParser("replay", description=text, epilog=f"Exit code:{codes}",
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--bag", type=Path, required=True, help="a recorded episode, with its interface inside")
    found.add_argument("--policy", type=Path, required=True, help="folder of the policy checkpoint")
    found.add_argument("--tolerance", type=float, default=1e-3,
                       help="largest difference that passes, in the action's units (default: 0.001)")
    found.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"), help="for both (default: cpu)")
    found.add_argument("--domain", type=int, default=DOMAIN, help=f"ROS domain of the replay (default: {DOMAIN})")
    found.add_argument("--json", type=Path, help="write the figures there too")
    found.add_argument("--node", type=shlex.split, default=(), metavar="COMMAND",
                       help="program to run as policy_node instead, such as one with a preprocessing of your own")
    return found


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run como_ros replay`; returns the exit code."""
    given = parser().parse_args(args)
    try:
        found = replay(Options(given.bag, given.policy, given.tolerance, given.device, given.domain,
                               node=tuple(given.node)))
        print(found.table())
        if given.json is not None:
            given.json.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
    except ComoError as error:
        print(f"como: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"como: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 2
    for fault in found.faults:
        print(f"differs: {fault}")
    print("the node says something else than training" if found.faults else "the node says what training says")
    return int(bool(found.faults))


if __name__ == "__main__":
    sys.exit(main())
