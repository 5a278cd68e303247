"""CybORG and the simulator side by side: episodes played live in CybORG, replayed at once in the simulator.

The simulator is given Blue's actions and the random outcomes that CybORG drew. Both tables, reward, success flags,
Red's actions and the whole true state must come out equal in every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cage2.traces import replay
from ray_rl.envs.cyborg.blue_policies import MakeBlue
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.recorder import RED_NAMES, record_episodes, save_trace
from ray_rl.envs.cyborg.returns import FEWEST
from ray_rl.seeding import Purpose, episode_seeds

_CHUNK = 20
"""Episodes recorded before they are replayed."""
_SLEEPING_RED = RED_NAMES[2]
_SLEEPING_RED_SHARE = 0.2
"""Nothing much can happen while Red sleeps: these pairs get this share of the episodes of others, but enough for the
comparison of means where all pairs can have them."""


@dataclass(frozen=True, slots=True)
class PairReport:
    """What came of the episodes of one red agent and one Blue policy.

    Attributes:
        red: ``bline``, ``meander`` or ``sleep``.
        blue: Name of Blue's policy.
        n_episodes: Episodes played in both.
        n_steps: Steps compared.
        n_mismatches: Steps in which anything differs.
        first_difference: The first of them with everything around it; empty when there is none.
        returns: [n_episodes] float64, CybORG's returns.
    """

    red: str
    blue: str
    n_episodes: int
    n_steps: int
    n_mismatches: int
    first_difference: str
    returns: NDArray[np.float64]


def play_side_by_side(
    game: Game,
    rules: str,
    policies: Mapping[str, MakeBlue],
    n_episodes: int,
    *,
    seed: int = 0,
    n_steps: int = 100,
    save_to: Path | None = None,
    on_chunk: Callable[[int], None] = lambda done: None,
) -> Iterator[PairReport]:
    """Play every red agent against every Blue policy in both, pair after pair.

    Args:
        game: The CybORG.
        rules: Its rule set.
        policies: Blue's policies by name.
        n_episodes: Episodes in all; see `share_out`.
        seed: Decides all episodes.
        n_steps: Steps per episode.
        save_to: Folder for the recordings, or None to keep none.
        on_chunk: Called with the number of episodes done so far.
    """
    done = 0
    for pair, (red, blue, count) in enumerate(share_out(tuple(policies), n_episodes)):
        seeds = episode_seeds(seed, Purpose.VERIFY, pair * n_episodes, count).tolist()
        report = PairReport(red, blue, 0, 0, 0, "", np.empty(0))
        for start in range(0, count, _CHUNK):
            chunk = seeds[start : start + _CHUNK]
            trace = record_episodes(game, red, policies[blue], chunk, n_steps, blue)
            if save_to is not None:
                name = f"{trace.path.stem}__{start // _CHUNK:03d}.npz" if count > _CHUNK else trace.path.name
                save_trace(replace(trace, path=Path(name)), save_to)
            found = replay(trace, rules)
            report = replace(
                report,
                n_episodes=report.n_episodes + found.n_episodes,
                n_steps=report.n_steps + found.n_steps,
                n_mismatches=report.n_mismatches + found.n_mismatches,
                first_difference=report.first_difference or found.first_difference,
                returns=np.concatenate([report.returns, trace.arrays["reward"].sum(axis=1)]),
            )
            done += len(chunk)
            on_chunk(done)
        yield report


def share_out(blues: tuple[str, ...], n_episodes: int) -> list[tuple[str, str, int]]:
    """Episodes of each pair of red agent and Blue policy; at least one each, a few more than asked in all.

    Pairs with a sleeping Red get a fifth of what the others get, or `FEWEST` if that is more, but no more than others.
    """
    pairs = [(red, blue) for red in RED_NAMES for blue in blues]
    asleep = [red == _SLEEPING_RED for red, _ in pairs]
    weights = np.where(asleep, _SLEEPING_RED_SHARE, 1.0)
    few = max(n_episodes * _SLEEPING_RED_SHARE / weights.sum(), min(FEWEST, n_episodes / len(pairs)))
    many = (n_episodes - few * sum(asleep)) / (len(pairs) - sum(asleep))
    return [(*pair, max(1, math.ceil(few if still else many))) for pair, still in zip(pairs, asleep, strict=True)]
