"""Blue policies for holding CybORG and the simulator against each other: each plays in both, from the same words.

They draw from numpy generators of their own, one per episode, never from the game's random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cage2.action_sets import ACTION_SET_SIZES, ACTION_SETS, allowed_actions, game_action
from ray_rl.envs.cage2.constants import (
    ANALYSE_BLOCK,
    FIRST_DECOY_BLOCK,
    MONITOR,
    N_ACTIONS,
    N_DECOYS,
    N_HOSTS,
    OP_SERVER0,
    REMOVE_BLOCK,
    RESTORE_BLOCK,
    SLEEP,
    TABLES,
    USER0,
    action_index,
)
from ray_rl.envs.cage2.notebook import NOTEBOOK_SIZE, reset_notebook, update_notebook
from ray_rl.envs.cage2.sightings import NO_SIGHTING
from ray_rl.envs.cage2.views import VIEW_SIZES, VIEWS, active_features
from ray_rl.seeding import policy_uniforms


@dataclass(frozen=True, slots=True)
class Seen:
    """What Blue knows after a step.

    Attributes:
        tables: The stock and the corrected table, packed.
        reported: Hosts on which a reverse shell was reported in the step, in the order of the report.
        n_steps: Steps taken so far.
        sighting: What the raw events of the step say of an exploit (`ray_rl.envs.cage2.sightings`).
    """

    tables: tuple[int, int] = (0, 0)
    reported: tuple[int, ...] = ()
    n_steps: int = 0
    sighting: int = NO_SIGHTING


class BluePolicy(Protocol):
    """Plays one episode."""

    def act(self, seen: Seen) -> int:
        """Choose the next action, 0…144."""
        ...


MakeBlue = Callable[[int], BluePolicy]
"""Makes the policy of an episode from the episode's seed."""


class Sleeping:
    """Does nothing."""

    def act(self, seen: Seen) -> int:
        """Sleep."""
        return SLEEP


class AtRandom:
    """Any of the 145 actions, all alike."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def act(self, seen: Seen) -> int:
        """Draw an action."""
        return int(self._rng.integers(N_ACTIONS))


class Reacting:
    """The baselines in CybORG's own repository: hosts with a reported shell queue up for one repair each.

    They look at the reports only after a Monitor, and never at User0.

    Args:
        block: Their repair, REMOVE_BLOCK or RESTORE_BLOCK.
    """

    def __init__(self, block: int) -> None:
        self._block = block
        self._queue: list[int] = []
        self._watched = False

    def act(self, seen: Seen) -> int:
        """Repair the next host of the queue, or watch."""
        if self._watched:
            self._queue += [host for host in seen.reported if host != USER0 and host not in self._queue]
        self._watched = not self._queue
        return MONITOR if self._watched else action_index(self._block, self._queue.pop(0))


class Mixed:
    """Visits much of the game: 12 % uniform, 8 % waiting, else mostly where something shows, with many decoys."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def act(self, seen: Seen) -> int:
        """Draw an action by what the corrected table shows."""
        draw = self._rng.random()
        if draw < 0.12:
            return int(self._rng.integers(N_ACTIONS))
        if draw < 0.20:
            return int(self._rng.choice([SLEEP, MONITOR]))
        shown = [host for host in range(N_HOSTS) if seen.tables[1] >> 4 * host & 15]
        if shown and self._rng.random() < 0.6:
            return self._on(int(self._rng.choice(shown)), (0.25, 0.30, 0.20, 0.25, 0.0))
        return self._on(int(self._rng.integers(N_HOSTS)), (0.20, 0.10, 0.07, 0.55, 0.08))

    def _on(self, host: int, shares: tuple[float, ...]) -> int:
        """Analyse, Remove, Restore, a decoy or Sleep, by their shares."""
        kind = int(self._rng.choice(5, p=shares))
        if kind == 4:
            return SLEEP
        decoy = FIRST_DECOY_BLOCK + int(self._rng.integers(N_DECOYS))
        return action_index((ANALYSE_BLOCK, REMOVE_BLOCK, RESTORE_BLOCK, decoy)[kind], host)


class Probing:
    """Goes where the rules are odd: every decoy on every host, and Op_Server0 restored before or after Impact.

    Each episode restores Op_Server0 twice, in half of them early, else late, when a Red that nobody stops has hit it.
    Otherwise the decoys come in a random order, every third step a repair, half of these where something shows.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        first = int(rng.integers(0, 12)) if rng.random() < 0.5 else int(rng.integers(16, 60))
        self._restores = (first, first + int(rng.integers(3, 30)))
        self._decoys = [(kind, host) for kind in range(N_DECOYS) for host in range(N_HOSTS)]
        rng.shuffle(self._decoys)

    def act(self, seen: Seen) -> int:
        """Follow the plan of the episode."""
        if seen.n_steps in self._restores:
            return action_index(RESTORE_BLOCK, OP_SERVER0)
        if seen.n_steps % 3 == 2:
            shown = [host for host in range(N_HOSTS) if seen.tables[1] >> 4 * host & 15]
            host = (
                int(self._rng.choice(shown)) if shown and self._rng.random() < 0.5 else int(self._rng.integers(N_HOSTS))
            )
            return action_index(int(self._rng.choice([ANALYSE_BLOCK, REMOVE_BLOCK, RESTORE_BLOCK])), host)
        kind, host = self._decoys[seen.n_steps % len(self._decoys)]
        return action_index(FIRST_DECOY_BLOCK + kind, host)


class ActsOnBits(Protocol):
    """A network that picks actions, as `ray_rl.policy.inference.MlpPolicy` does."""

    def begin(self, n_episodes: int) -> None:
        """That many episodes start."""
        ...

    def act(
        self,
        observations: NDArray[Any],
        action_masks: NDArray[np.bool_] | None,
        uniforms: NDArray[np.float64],
        greedy: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Choose actions [B] for observations [B, D]."""
        ...


class Network:
    """A trained policy, which samples its actions as in training.

    Args:
        policy: The network, of this episode alone.
        seed: The episode's seed.
        table: Name of the table it reads.
        view: Name of its view.
        actions: Name of its action set.
    """

    def __init__(self, policy: ActsOnBits, seed: int, table: str, view: str, actions: str) -> None:
        self._policy = policy
        policy.begin(1)
        self._seeds = np.array([seed], dtype=np.uint64)
        self._table, self._view, self._actions = TABLES.index(table), VIEWS.index(view), ACTION_SETS.index(actions)
        self._notebook = np.empty(NOTEBOOK_SIZE, dtype=np.int64)
        self._last = SLEEP
        reset_notebook(self._notebook)

    def act(self, seen: Seen) -> int:
        """Note what was seen, and ask the network."""
        if seen.n_steps:
            update_notebook(self._notebook, seen.tables[self._table], self._last, seen.sighting)
        size = VIEW_SIZES[self._view]
        observation = np.zeros((1, size), dtype=np.uint8)
        active = np.empty(size, dtype=np.int32)
        observation[0, active[: active_features(self._notebook, self._view, active)]] = 1
        mask = np.empty((1, ACTION_SET_SIZES[self._actions]), dtype=np.bool_)
        allowed_actions(self._notebook, self._actions, mask[0])
        uniforms = policy_uniforms(self._seeds, seen.n_steps)
        actions, _ = self._policy.act(observation, mask, uniforms, np.zeros(1, dtype=np.bool_))
        self._last = int(game_action(self._actions, int(actions[0])))
        return self._last


BLUE_POLICIES: dict[str, MakeBlue] = {
    "sleep": lambda seed: Sleeping(),
    "random": lambda seed: AtRandom(np.random.default_rng([2, seed])),
    "react_restore": lambda seed: Reacting(RESTORE_BLOCK),
    "react_remove": lambda seed: Reacting(REMOVE_BLOCK),
    "mixed": lambda seed: Mixed(np.random.default_rng([5, seed])),
    "probing": lambda seed: Probing(np.random.default_rng([6, seed])),
}
"""Policies by name, as recorded traces name them."""
