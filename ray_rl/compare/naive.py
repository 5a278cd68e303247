"""How episodes are often collected in research code, to stand beside the five methods: everything anew for each one.

A pool of processes, one task per episode. Each builds its environment, gets the weights with the task, and acts with
torch, one step at a time; CybORG is stepped through the wrapper that comes with it. Nothing here is slowed down on
purpose; it is only what is written first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil
from numpy.typing import NDArray

from ray_rl.collect.api import NOT_PUBLISHED, Chunk, ChunkSummary, PublishCosts, summarise
from ray_rl.collect.executor import end_pool, make_pool
from ray_rl.config import EnvConfig
from ray_rl.envs.api import BatchedEnv, EnvSpec, StepResult
from ray_rl.envs.cage2.constants import N_ACTIONS, TABLE_BITS
from ray_rl.envs.cyborg.find import load
from ray_rl.envs.cyborg.wrapper_stack import WrapperStack
from ray_rl.envs.registry import make_env
from ray_rl.episodes import EpisodeBatch, EpisodeRequest
from ray_rl.interruption import deaf_children
from ray_rl.policy.inference import PolicyWeights
from ray_rl.rollout import run_episodes


class NaiveCollector:
    """A collector that keeps nothing from one episode to the next; processes that die end it.

    Args:
        env: The environment.
        n_workers: Processes.
    """

    def __init__(self, env: EnvConfig, n_workers: int) -> None:
        self._env = env
        self._pool = make_pool(n_workers)
        self._running: set[Future[tuple[ChunkSummary, EpisodeBatch]]] = set()
        self._weights: PolicyWeights | None = None
        self._policy_version = 0
        self.publish_costs = PublishCosts()

    def publish(self, weights: PolicyWeights, policy_version: int) -> None:
        """Make weights current; each episode will be sent its own copy."""
        self._weights, self._policy_version = weights, policy_version
        self.publish_costs = self.publish_costs.plus(0, 0.0)

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        """Give every episode to the pool."""
        if self._weights is None:
            raise ValueError(NOT_PUBLISHED)
        with deaf_children():
            self._running |= {
                self._pool.submit(_run_episode, self._env, self._weights, request, self._policy_version)
                for request in requests
            }

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        """Yield episodes as they finish."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with contextlib.suppress(TimeoutError):
            while self._running:
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                for future in as_completed(set(self._running), left_s):
                    self._running.discard(future)
                    yield self._take_in(future)

    def _take_in(self, future: Future[tuple[ChunkSummary, EpisodeBatch]]) -> Chunk:
        summary, batch = future.result()
        assert self._weights is not None
        costs = self.publish_costs
        self.publish_costs = replace(costs, serialised_bytes=costs.serialised_bytes + self._weights.n_bytes)
        return Chunk(summary, batch)

    def close(self) -> None:
        """End all processes."""
        end_pool(self._pool)
        self._running.clear()

    def __enter__(self) -> Self:
        """Return the collector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _run_episode(
    config: EnvConfig, weights: PolicyWeights, request: EpisodeRequest, policy_version: int
) -> tuple[ChunkSummary, EpisodeBatch]:
    env: BatchedEnv = StockCyborgEnv(config.cyborg_path) if config.env == "cyborg" else make_env(config)
    batch = run_episodes(env, _TorchPolicy(weights), [request], policy_version)
    env.close()
    return summarise(batch, request.purpose, psutil.Process().memory_info().rss), batch


class StockCyborgEnv:
    """CybORG in its own wrapper, one episode in each: what `CyborgEnv` gives with the stock table and all actions.

    Args:
        path: Folder of a checkout; None looks for an importable CybORG.
    """

    max_batch = 1

    def __init__(self, path: str | None) -> None:
        self.spec = EnvSpec("cyborg in its own wrapper", TABLE_BITS, True, N_ACTIONS, False)
        self._upstream = load(path)
        self._stack: WrapperStack | None = None
        self._steps_left = 0

    def reset(self, requests: Sequence[EpisodeRequest]) -> NDArray[np.uint8]:
        """Build CybORG and start the episode; returns the first table [1, 52]."""
        (request,) = requests
        self._stack = WrapperStack(self._upstream, request.red_agent)
        self._steps_left = request.max_steps
        return self._stack.reset(request.seed)[None].astype(np.uint8)

    def action_masks(self) -> None:
        """Every action is always allowed."""

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Take one action [1]."""
        assert self._stack is not None, "reset comes before step"
        table, reward = self._stack.step(int(actions[0]))
        self._steps_left -= 1
        over = np.array([self._steps_left == 0])
        return StepResult(table[None].astype(np.uint8), np.array([reward], np.float32), np.zeros(1, np.bool_), over)

    def close(self) -> None:
        """Nothing to release."""


class _TorchPolicy:
    """An MLP that torch evaluates row by row of `ray_rl.policy.acting.ActingPolicy.act`."""

    def __init__(self, weights: PolicyWeights) -> None:
        import torch

        torch.set_num_threads(1)
        self.weights = weights
        layers: list[torch.nn.Module] = []
        start = 0
        for n_in, n_out in zip(weights.sizes[:-1].tolist(), weights.sizes[1:].tolist(), strict=True):
            layer = torch.nn.Linear(n_in, n_out)
            matrix, bias = np.split(weights.values[start : start + (n_in + 1) * n_out].copy(), [n_in * n_out])
            layer.weight.data = torch.from_numpy(matrix.reshape(n_in, n_out).T.copy())
            layer.bias.data = torch.from_numpy(bias)
            layers += [layer, torch.nn.ReLU()]
            start += (n_in + 1) * n_out
        self._network = torch.nn.Sequential(*layers[:-1])

    def begin(self, n_episodes: int) -> None:
        """Nothing to forget."""

    def act(
        self,
        observations: NDArray[Any],
        action_masks: NDArray[np.bool_] | None,
        uniforms: NDArray[np.float64],
        greedy: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        import torch

        with torch.no_grad():
            logits = self._network(torch.as_tensor(observations, dtype=torch.float32))
            if action_masks is not None:
                logits = logits.masked_fill(~torch.from_numpy(action_masks), -1e9)
            law: Any = torch.distributions.Categorical(logits=logits)
            actions = law.sample()
            return actions.numpy(), law.log_prob(actions).numpy()
