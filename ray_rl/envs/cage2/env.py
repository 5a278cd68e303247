"""The door of the simulator: a `BatchedEnv` over rows of state, with every input checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.api import EnvSpec, StepResult, checked_actions, requested_orders, with_orders
from ray_rl.envs.cage2.action_sets import ACTION_SET_SIZES, ACTION_SETS, allowed_actions, game_action
from ray_rl.envs.cage2.constants import RULE_SETS, TABLES
from ray_rl.envs.cage2.events import Event, events_of
from ray_rl.envs.cage2.kernels import reset_row, step_row
from ray_rl.envs.cage2.notebook import NOTEBOOK_SIZE, OWN_ACTIONS
from ray_rl.envs.cage2.repairs import judge_repair, repair_targets
from ray_rl.envs.cage2.simulator import SESSION_HOSTS, STATE_SIZE
from ray_rl.envs.cage2.truth import Truth, truth_of
from ray_rl.envs.cage2.views import VIEW_SIZES, VIEWS, active_features
from ray_rl.episodes import RED_AGENTS, EpisodeRequest
from ray_rl.workflow.orders import ORDER_BITS
from ray_rl.workflow.rule import AlignmentRule


class Cage2Env:
    """CAGE Challenge 2, stepped together in any number of environments.

    Args:
        rules: ``head`` or ``leaderboard``.
        table: ``stock`` or ``corrected``.
        view: ``table``, ``winner``, ``memory`` or ``raw``.
        actions: ``all`` or ``compact``.
        alignment: What following an order of repair is worth, for episodes that are asked to; None: they are not.

    Raises:
        ValueError: For a name that is none of these.
    """

    max_batch = 4096

    def __init__(
        self,
        rules: str = "head",
        table: str = "stock",
        view: str = "table",
        actions: str = "all",
        alignment: AlignmentRule | None = None,
    ) -> None:
        self.rules_code = _code("rules", rules, RULE_SETS)
        self.table_code = _code("table", table, TABLES)
        self.view_code = _code("view", view, VIEWS)
        self.action_set_code = _code("actions", actions, ACTION_SETS)
        self.spec = EnvSpec(
            name=f"cage2 rules={rules} table={table} view={view} actions={actions}",
            observation_size=VIEW_SIZES[self.view_code],
            observation_bits=True,
            n_actions=ACTION_SET_SIZES[self.action_set_code],
            has_action_masks=True,
        )
        self.alignment = alignment
        if alignment is not None:
            self.spec = with_orders(self.spec)
        self.targets = repair_targets(self.action_set_code)
        self._orders = np.empty(0, dtype=np.int64)
        self._states = np.empty((0, STATE_SIZE), dtype=np.int64)
        self._notebooks = np.empty((0, NOTEBOOK_SIZE), dtype=np.int64)
        self._steps_left = np.empty(0, dtype=np.int64)

    def reset(self, requests: Sequence[EpisodeRequest]) -> NDArray[np.uint8]:
        """Start one episode per request; returns the first observations [B, D] uint8."""
        if not 1 <= len(requests) <= self.max_batch:
            raise ValueError(f"reset takes 1 to {self.max_batch} episodes, not {len(requests)}")
        for request in requests:
            if not 0 <= request.seed < 2**63:
                raise ValueError(f"seed {request.seed} of episode {request.index} is outside [0, 2**63)")
            if request.max_steps < 1:
                raise ValueError(f"episode {request.index} has {request.max_steps} steps, not 1 or more")
            if request.red_agent not in RED_AGENTS:
                raise ValueError(f"unknown red agent {request.red_agent!r}; known: {', '.join(RED_AGENTS)}")
        self._orders = requested_orders(requests) if self.spec.follows_order else np.empty(0, dtype=np.int64)
        return self.begin(
            np.array([r.seed for r in requests], dtype=np.uint64),
            np.array([RED_AGENTS.index(r.red_agent) for r in requests], dtype=np.int64),
            np.array([r.max_steps for r in requests], dtype=np.int64),
        )

    def begin(
        self, seeds: NDArray[np.uint64], red_agents: NDArray[np.int64], n_steps: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """`reset` without a Python object per episode: for episodes in any number that follow no order, unchecked.

        Args:
            seeds: [B] uint64 below 2**63.
            red_agents: [B] int64, indices into `RED_AGENTS`.
            n_steps: [B] int64, 1 or more.

        Returns:
            The first observations [B, D].
        """
        self._states = np.empty((len(seeds), STATE_SIZE), dtype=np.int64)
        self._notebooks = np.empty((len(seeds), NOTEBOOK_SIZE), dtype=np.int64)
        self._steps_left = n_steps.copy()
        _reset_rows(self._states, self._notebooks, seeds, red_agents, self.rules_code)
        return self._observe()

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Take one action [B] in each environment.

        Raises:
            ValueError: For a wrong number of actions, one that is out of range or no whole number, or before `reset`.
        """
        n = len(self._states)
        actions = checked_actions(actions, n, self.spec.n_actions)
        rewards = np.empty(n, dtype=np.float32)
        verdicts = self._judge(actions) if self.spec.follows_order else None
        _step_rows(self._states, self._notebooks, self.table_code, self.action_set_code, actions, rewards)
        self._steps_left -= 1
        return StepResult(self._observe(), rewards, np.zeros(n, dtype=np.bool_), self._steps_left <= 0, verdicts)

    def action_masks(self) -> NDArray[np.bool_]:
        """[B, A] True where an action may help now; see `action_sets.allowed_actions`."""
        masks = np.empty((len(self._notebooks), self.spec.n_actions), dtype=np.bool_)
        _mask_rows(self._notebooks, self.action_set_code, masks)
        return masks

    def truth(self) -> Truth:
        """The true state of all environments, which Blue does not see."""
        return truth_of(self._states)

    def events(self) -> list[list[Event]]:
        """The raw events of the latest step of each environment, which Blue's table is read from."""
        pairs = zip(self._states, self._notebooks, strict=True)
        return [events_of(state, int(notebook[OWN_ACTIONS])) for state, notebook in pairs]

    def close(self) -> None:
        """Nothing to release."""

    def _observe(self) -> NDArray[np.uint8]:
        observations = np.zeros((len(self._notebooks), self.spec.observation_size), dtype=np.uint8)
        _observe_rows(self._notebooks, self.view_code, observations)
        if self.spec.follows_order:
            np.put_along_axis(observations, VIEW_SIZES[self.view_code] + ORDER_BITS[self._orders], 1, axis=1)
        return observations

    def _judge(self, actions: NDArray[np.int64]) -> NDArray[np.int8]:
        """Whether actions about to be taken follow the orders: [B] int8."""
        hosts, targets = self._states[:, SESSION_HOSTS], self.targets[actions]
        steps = zip(self._orders.tolist(), hosts.tolist(), targets.tolist(), strict=True)
        return np.array([judge_repair(*step) for step in steps], dtype=np.int8)


def _code(what: str, name: str, known: tuple[str, ...]) -> int:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    return known.index(name)


@njit(cache=True, nogil=True)
def _reset_rows(
    states: NDArray[np.int64],
    notebooks: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    red_agents: NDArray[np.int64],
    rules: int,
) -> None:
    for row in range(states.shape[0]):
        reset_row(states[row], notebooks[row], seeds[row], red_agents[row], rules)


@njit(cache=True, nogil=True)
def _step_rows(
    states: NDArray[np.int64],
    notebooks: NDArray[np.int64],
    table: int,
    action_set: int,
    actions: NDArray[np.int64],
    rewards: NDArray[np.float32],
) -> None:
    for row in range(states.shape[0]):
        rewards[row] = step_row(states[row], notebooks[row], table, game_action(action_set, actions[row]))


@njit(cache=True, nogil=True)
def _observe_rows(notebooks: NDArray[np.int64], view: int, observations: NDArray[np.uint8]) -> None:
    active = np.empty(observations.shape[1], np.int32)
    for row in range(notebooks.shape[0]):
        for k in range(active_features(notebooks[row], view, active)):
            observations[row, active[k]] = 1


@njit(cache=True, nogil=True)
def _mask_rows(notebooks: NDArray[np.int64], action_set: int, masks: NDArray[np.bool_]) -> None:
    for row in range(notebooks.shape[0]):
        allowed_actions(notebooks[row], action_set, masks[row])
