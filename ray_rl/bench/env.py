"""``ray-rl bench env``: steps per second on one core, for the simulator alone up to a whole rollout, and for CybORG."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_rl.bench.machine import Machine, this_machine
from ray_rl.bench.minicage import episode_player, load_minicage
from ray_rl.bench.rounds import Spread, measure_in_rounds
from ray_rl.config import EnvConfig, UserError
from ray_rl.envs.api import BatchedEnv
from ray_rl.envs.cage2.constants import N_ACTIONS, RULE_SETS, TABLE_BITS
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.cage2.random_play import random_play
from ray_rl.envs.cyborg.find import Upstream, load
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.table import EMPTY_TABLES, draw_tables
from ray_rl.envs.cyborg.wrapper_stack import WrapperStack
from ray_rl.envs.registry import make_env
from ray_rl.episodes import episode_requests
from ray_rl.policy.inference import MlpPolicy
from ray_rl.policy.random_weights import random_weights
from ray_rl.rollout import run_episodes
from ray_rl.seeding import Purpose, episode_seeds

_STEPS = 100
_RED_AGENT = "B_lineAgent"
BATCH_SIZES = (1, 16, 256, 4096)


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One line of the table.

    Attributes:
        what: What was run.
        steps_per_s: Environment steps per second of process CPU time, once per round.
    """

    what: str
    steps_per_s: Spread


@dataclass(frozen=True, slots=True)
class EnvBench:
    """Result of the benchmark.

    Attributes:
        machine: Where it was measured.
        rules: Rule set.
        rows: One per thing measured.
        not_run: What could not be run here, with the reason.
    """

    machine: Machine
    rules: str
    rows: tuple[BenchRow, ...]
    not_run: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        rows = [{"what": row.what, "steps_per_s": row.steps_per_s.to_json()} for row in self.rows]
        return {"machine": self.machine.to_json(), "rules": self.rules, "rows": rows, "not_run": list(self.not_run)}


def bench_env(
    *,
    rules: str = "head",
    rounds: int = 5,
    hidden_size: int = 64,
    cyborg_path: str | None = None,
    minicage_path: str | None = None,
) -> EnvBench:
    """Measure steps per second of process CPU time on one core.

    Args:
        rules: Rule set.
        rounds: Measurements of each row, interleaved.
        hidden_size: Units of both hidden layers of the policy that acts.
        cyborg_path: Folder of a CybORG checkout, or None to look for an importable one.
        minicage_path: Folder of a checkout of MiniCAGE, or None to leave it out.

    Raises:
        UserError: When there is no MiniCAGE at its path.
    """
    machine = this_machine()
    measurements = dict(_simulator_rows(rules, hidden_size))
    if minicage_path is not None:
        measurements |= _minicage_rows(minicage_path)
    not_run: list[tuple[str, str]] = []
    try:
        measurements |= _cyborg_rows(rules, hidden_size, cyborg_path)
    except UserError as error:
        not_run.append(("CybORG 2.1", str(error)))
    for warm_up in measurements.values():
        warm_up()
    figures = measure_in_rounds(measurements, rounds)
    rows = tuple(BenchRow(what, figure) for what, figure in figures.items())
    return EnvBench(machine, rules, rows, tuple(not_run))


def _simulator_rows(rules: str, hidden_size: int) -> dict[str, Callable[[], float]]:
    rows: dict[str, Callable[[], float]] = {}
    seeds = episode_seeds(0, Purpose.BENCH, 0, 10_000)
    code = RULE_SETS.index(rules)
    rows["simulator alone, random Blue"] = lambda: _rate(
        len(seeds) * _STEPS, lambda: random_play(seeds, 0, code, _STEPS)
    )
    for batch_size in BATCH_SIZES:
        rows[f"stepped from Python, winner view and masks, {batch_size} together"] = _stepping(rules, batch_size)
    for view in ("table", "winner", "memory"):
        env = Cage2Env(rules=rules, view=view, actions="compact")
        label = f"whole rollout, {view} view ({env.spec.observation_size} bits), {hidden_size}×{hidden_size} policy"
        rows[label] = _rollout(env, hidden_size, 500)
    return rows


def _cyborg_rows(rules: str, hidden_size: int, path: str | None) -> dict[str, Callable[[], float]]:
    """Real CybORG: through the adapter, in its own wrappers, and as a collector that builds it for each episode."""
    config = EnvConfig.model_validate({"env": "cyborg", "rules": rules, "cyborg_path": path, "view": "winner"})
    env = make_env(config)
    upstream = load(path)
    stack = WrapperStack(upstream, _RED_AGENT)
    actions = np.random.default_rng(0).integers(N_ACTIONS, size=_STEPS)
    game = Game(upstream)
    return {
        "CybORG 2.1, adapter: table from its observation, random Blue": lambda: _rate(
            _STEPS, lambda: _play_adapter(game, actions)
        ),
        "CybORG 2.1 in its own wrappers, random Blue": lambda: _rate(
            _STEPS, lambda: stack.play_without_bookkeeping(0, actions)
        ),
        f"CybORG 2.1, adapter: whole rollout, winner view, {hidden_size}×{hidden_size} policy": _rollout(
            env, hidden_size, 3
        ),
        f"CybORG 2.1 built anew per episode, its own wrappers, {hidden_size}×{hidden_size} torch policy": lambda: _rate(
            _STEPS, lambda: _play_built_anew(upstream, hidden_size)
        ),
    }


def _minicage_rows(path: str) -> dict[str, Callable[[], float]]:
    minicage = load_minicage(path)
    rows: dict[str, Callable[[], float]] = {}
    for batch_size in BATCH_SIZES:
        play = episode_player(minicage, batch_size, _STEPS)
        rows[f"MiniCAGE (numpy, other rules), its Meander, random Blue, {batch_size} together"] = partial(
            _rate, batch_size * _STEPS, play
        )
    return rows


def _play_adapter(game: Game, actions: NDArray[np.int64]) -> None:
    game.reset(0, _RED_AGENT)
    tables = EMPTY_TABLES
    for action in actions.tolist():
        observation, _ = game.step(action)
        tables = draw_tables(tables, action, observation)


def _play_built_anew(upstream: Upstream, hidden_size: int) -> None:
    """An episode as a plain collector runs it: its own CybORG, and torch asked once per step."""
    import torch

    network = torch.nn.Sequential(
        torch.nn.Linear(TABLE_BITS, hidden_size),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden_size, hidden_size),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden_size, N_ACTIONS),
    )
    stack = WrapperStack(upstream, _RED_AGENT)
    table = stack.reset(0)
    with torch.no_grad():
        for _ in range(_STEPS):
            logits = network(torch.as_tensor(table, dtype=torch.float32))
            action = torch.multinomial(torch.softmax(logits, dim=-1), 1)
            table, _ = stack.step(int(action))


def _stepping(rules: str, batch_size: int) -> Callable[[], float]:
    env = Cage2Env(rules=rules, view="winner", actions="compact")
    requests = episode_requests(0, 0, batch_size, red_agent=_RED_AGENT, max_steps=_STEPS, purpose=Purpose.BENCH)
    actions = np.random.default_rng(0).integers(env.spec.n_actions, size=(_STEPS, batch_size))

    def play() -> None:
        env.reset(requests)
        for row in actions:
            env.action_masks()
            env.step(row)

    return lambda: _rate(batch_size * _STEPS, play)


def _rollout(env: BatchedEnv, hidden_size: int, n_episodes: int) -> Callable[[], float]:
    spec = env.spec
    policy = MlpPolicy(random_weights(spec.observation_size, (hidden_size, hidden_size), spec.n_actions))
    requests = episode_requests(0, 0, n_episodes, red_agent=_RED_AGENT, max_steps=_STEPS, purpose=Purpose.BENCH)
    return lambda: _rate(n_episodes * _STEPS, lambda: run_episodes(env, policy, requests, 0))


def _rate(n_steps: int, play: Callable[[], object]) -> float:
    started = time.process_time()
    play()
    return n_steps / (time.process_time() - started)
