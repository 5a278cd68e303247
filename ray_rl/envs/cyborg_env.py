"""Real CybORG 2.1 as a `BatchedEnv`: observations, views, masks, actions and truth as in the built-in simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.api import EnvError, EnvSpec, StepResult, checked_actions, requested_orders, with_orders
from ray_rl.envs.cage2.action_sets import ACTION_SET_SIZES, ACTION_SETS, allowed_actions, game_action
from ray_rl.envs.cage2.constants import TABLES
from ray_rl.envs.cage2.events import Event
from ray_rl.envs.cage2.notebook import N_STEPS, NOTEBOOK_SIZE, reset_notebook, update_notebook
from ray_rl.envs.cage2.repairs import judge_repair, repair_targets
from ray_rl.envs.cage2.sightings import NO_SIGHTING, sighting_in
from ray_rl.envs.cage2.truth import Truth
from ray_rl.envs.cage2.views import RAW_VIEW, VIEW_SIZES, VIEWS, active_features
from ray_rl.envs.cyborg.find import load
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.raw_events import events_in
from ray_rl.envs.cyborg.rule_set import identify
from ray_rl.envs.cyborg.table import EMPTY_TABLES, Tables, draw_tables
from ray_rl.envs.cyborg.truth import session_hosts, truth_of_games
from ray_rl.episodes import RED_AGENTS, EpisodeRequest
from ray_rl.failures import UserError
from ray_rl.workflow.alignment import NO_FIX
from ray_rl.workflow.orders import ORDER_BITS
from ray_rl.workflow.rule import AlignmentRule


class CyborgEnv:
    """CybORG 2.1, one instance per slot, built once and kept between episodes.

    An episode depends on its request alone: every call into a slot's CybORG runs on that slot's own random numbers,
    and Python's global generator is left as it was found.

    Args:
        path: Folder of a checkout of cage-challenge-2; None looks for an importable CybORG.
        rules: The rule set that it must have, ``head`` or ``leaderboard``.
        table: ``stock`` or ``corrected``.
        view: ``table``, ``winner``, ``memory`` or ``raw``.
        actions: ``all`` or ``compact``.
        alignment: What following an order of repair is worth, for episodes that are asked to; None: they are not.

    Raises:
        UserError: When CybORG is missing, is another one, or has another rule set.
        ValueError: For an unknown table, view or action set.
    """

    max_batch = 8

    def __init__(
        self,
        path: str | None = None,
        rules: str = "head",
        table: str = "stock",
        view: str = "table",
        actions: str = "all",
        alignment: AlignmentRule | None = None,
    ) -> None:
        self.table_code = _code("table", table, TABLES)
        self.view_code = _code("view", view, VIEWS)
        self.action_set_code = _code("actions", actions, ACTION_SETS)
        self._upstream = load(path)
        self._games = [Game(self._upstream)]
        found = identify(self._games[0], self._upstream)
        if found != rules:
            raise UserError(
                f"the CybORG in {self._upstream.folder} plays by the rules {found!r}, asked for was {rules!r}: say "
                f"--rules {found}, or check out the other version (26ce1c1 for head, 606813b for leaderboard)"
            )
        self.rules = found
        self.spec = EnvSpec(
            name=f"cyborg rules={rules} table={table} view={view} actions={actions}",
            observation_size=VIEW_SIZES[self.view_code],
            observation_bits=True,
            n_actions=ACTION_SET_SIZES[self.action_set_code],
            has_action_masks=True,
        )
        self.alignment = alignment
        if alignment is not None:
            self.spec = with_orders(self.spec)
        self._targets = repair_targets(self.action_set_code)
        self._orders = np.empty(0, dtype=np.int64)
        self._tables: list[Tables] = []
        self._raw: list[dict[str, Any]] = []
        self._notebooks = np.empty((0, NOTEBOOK_SIZE), dtype=np.int64)
        self._steps_left = np.empty(0, dtype=np.int64)

    def reset(self, requests: Sequence[EpisodeRequest]) -> NDArray[np.uint8]:
        """Start one episode per request; returns the first observations [B, D] uint8."""
        n = len(requests)
        if not 1 <= n <= self.max_batch:
            raise ValueError(f"reset takes 1 to {self.max_batch} episodes, not {n}")
        for request in requests:
            if not 0 <= request.seed < 2**63:
                raise ValueError(f"seed {request.seed} of episode {request.index} is outside [0, 2**63)")
            if request.max_steps < 1:
                raise ValueError(f"episode {request.index} has {request.max_steps} steps, not 1 or more")
            if request.red_agent not in RED_AGENTS:
                raise ValueError(f"unknown red agent {request.red_agent!r}; known: {', '.join(RED_AGENTS)}")
        self._orders = requested_orders(requests) if self.spec.follows_order else np.empty(0, dtype=np.int64)
        while len(self._games) < n:
            self._games.append(Game(self._upstream))
        self._raw = [g.reset(r.seed, r.red_agent) for g, r in zip(self._games, requests, strict=False)]
        self._tables = [EMPTY_TABLES] * n
        self._notebooks = np.empty((n, NOTEBOOK_SIZE), dtype=np.int64)
        for notebook in self._notebooks:
            reset_notebook(notebook)
        self._steps_left = np.array([r.max_steps for r in requests], dtype=np.int64)
        return self._observe()

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Take one action [B] in each slot; slots whose episode is over stay as they are.

        Raises:
            ValueError: For a wrong number of actions, one that is out of range or no whole number, or before `reset`.
            EnvError: When CybORG raises; names the slot.
        """
        n = len(self._tables)
        actions = checked_actions(actions, n, self.spec.n_actions)
        rewards = np.zeros(n, dtype=np.float32)
        verdicts = np.full(n, NO_FIX, dtype=np.int8) if self.spec.follows_order else None
        for slot in np.flatnonzero(self._steps_left > 0).tolist():
            if verdicts is not None and (target := self._targets[actions[slot]]) >= 0:
                verdicts[slot] = judge_repair(self._orders[slot], session_hosts(self._games[slot]), target)
            rewards[slot] = self._step_slot(slot, game_action(self.action_set_code, int(actions[slot])))
        self._steps_left -= 1
        return StepResult(self._observe(), rewards, np.zeros(n, dtype=np.bool_), self._steps_left <= 0, verdicts)

    def _step_slot(self, slot: int, action: int) -> float:
        try:
            raw, reward = self._games[slot].step(action)
            tables = draw_tables(self._tables[slot], action, raw)
        except Exception as error:
            raise EnvError(slot, f"CybORG raised {type(error).__name__}: {error}") from error
        self._raw[slot] = raw
        self._tables[slot] = tables
        sighting = sighting_in(events_in(raw)) if self.view_code == RAW_VIEW else NO_SIGHTING
        update_notebook(self._notebooks[slot], tables[self.table_code], action, sighting)
        return reward

    def action_masks(self) -> NDArray[np.bool_]:
        """[B, A] True where an action may help now; see `ray_rl.envs.cage2.action_sets.allowed_actions`."""
        masks = np.empty((len(self._notebooks), self.spec.n_actions), dtype=np.bool_)
        for notebook, mask in zip(self._notebooks, masks, strict=True):
            allowed_actions(notebook, self.action_set_code, mask)
        return masks

    def truth(self) -> Truth:
        """The true state of all slots, which Blue does not see."""
        if not self._tables:
            raise ValueError("call reset before truth")
        return truth_of_games(self._games[: len(self._tables)])

    def events(self) -> list[list[Event]]:
        """The raw events of the latest step of each slot, which Blue's table is read from."""
        started = zip(self._raw, self._notebooks, strict=True)
        return [events_in(raw) if notebook[N_STEPS] else [] for raw, notebook in started]

    def raw_observations(self) -> list[dict[str, Any]]:
        """Blue's observation of each slot as CybORG gives it: the step's events with ports, process ids and files."""
        return list(self._raw)

    def close(self) -> None:
        """Nothing to release."""

    def _observe(self) -> NDArray[np.uint8]:
        observations = np.zeros((len(self._notebooks), self.spec.observation_size), dtype=np.uint8)
        active = np.empty(self.spec.observation_size, dtype=np.int32)
        for notebook, observation in zip(self._notebooks, observations, strict=True):
            observation[active[: active_features(notebook, self.view_code, active)]] = 1
        if self.spec.follows_order:
            np.put_along_axis(observations, VIEW_SIZES[self.view_code] + ORDER_BITS[self._orders], 1, axis=1)
        return observations


def _code(what: str, name: str, known: tuple[str, ...]) -> int:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    return known.index(name)
