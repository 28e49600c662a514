"""`como policy show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from como_core.bounds import COUNT, FROM_0
from como_core.errors import ComoError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from como_core.action_chunk import Policy


def show(
    run: tyro.conf.Positional[Path],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    env: tuple[str, ...] = (),
    data: tuple[Path, ...] = (),
    trials: Annotated[int, COUNT] = 4,
    first_seed: Annotated[int, FROM_0] = 10_000,
    episodes: Annotated[int, COUNT] = 3,
    device: str = "cpu",
) -> None:
    """See what a policy does: trials with the way that it plans, and its chunks beside recorded actions, as PNG.

    With --env: for each environment, film strips of trials, the way on which each chunk would lead the hand drawn over
    them, and the way that it then went. With --data: over each recording, what was done and what the policy would have
    done from there, for each value of the action; and how far it is off by how far it looks ahead.

    Examples:
        como policy show runs/policy --env metaworld:drawer-open-v3 -o pictures/
        como policy show runs/policy --data bags/ -o pictures/

    Args:
        run: Folder of the policy, as `como policy train` wrote it.
        output: Folder for the pictures.
        env: Environments to try it in.
        data: Bags, LeRobot data sets or HDF5 files with actions, or folders of them; best what it was not trained on.
        trials: Trials in each environment.
        first_seed: Seed of the first start state; the others follow it.
        episodes: Recordings to draw one by one; the errors are of all that were given.
        device: Torch device of the policy, such as cpu or cuda.
    """
    from como_core.formats.output_folder import writable_folder
    from como_core.policy.checkpoint import load_policy

    if not env and not data:
        raise ComoError("nothing to show the policy: give --env metaworld:drawer-open-v3 or --data bags/, or both")
    policy = load_policy(run, device)
    writable_folder(output)
    pictures = _rollouts(policy, env, range(first_seed, first_seed + trials)) if env else {}
    if data:
        pictures |= _predictions(policy, data, episodes)
    for name, figure in pictures.items():
        figure.savefig(output / f"{name}.png", dpi=110, facecolor="white")
        print(f"picture: {output / f'{name}.png'}")


def _rollouts(policy: Policy, envs: tuple[str, ...], seeds: range) -> dict[str, Figure]:
    """Name -> picture of the trials in each environment."""
    from como_core.simulation.environment import canonical_name, check_env
    from como_core.simulation.rollout import picture_name
    from como_core.simulation.witness import draw, watch
    from como_core.training.progress import track

    for env in envs:
        check_env(env)
    return {f"rollouts_{picture_name(env)}": draw([watch(policy, env, seed) for seed in track(seeds, env, "trials")])
            for env in dict.fromkeys(map(canonical_name, envs))}


def _predictions(policy: Policy, data: tuple[Path, ...], count: int) -> dict[str, Figure]:
    """Name -> picture of the predictions over recordings; those that cannot be used are named."""
    from como_core.evaluation.predictions import Along, by_lead, over_time, predict_along, value_names
    from como_core.formats.sources import open_sources
    from como_core.training.progress import track

    sources = open_sources(data, policy.interface)
    alongs: list[Along] = []
    for episode in track(sources.episodes, "predicting", "episodes"):
        try:
            alongs.append(predict_along(policy, episode))
        except ComoError as error:
            sources.skipped.append((Path(episode.source), str(error)))
    print(f"{len(alongs)} recordings with actions of this robot")
    for path, reason in sources.skipped:
        print(f"  left out: {reason if str(path) in reason else f'{path}: {reason}'}")
    if not alongs:
        raise ComoError(f"{', '.join(map(str, data))}: no recording that this policy can be shown; see the lines above")
    names = value_names(policy.interface.action)
    pictures = {f"predictions_{index}": over_time(along, names) for index, along in enumerate(alongs[:count])}
    errors = by_lead(alongs, names)
    return pictures | ({"errors_by_lead": errors} if errors else {})
