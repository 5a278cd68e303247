"""Environments in lockstep: one process each, a barrier at every step, the policy acting on all of them at once.

gymnasium's `AsyncVectorEnv` is the barrier; observations, masks and timings come back through its shared memory. Every
step takes as long as the slowest environment, which is what makes this method slow.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import gymnasium
import numpy as np
import psutil
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from numpy.typing import NDArray

from ray_rl.collect.api import NOT_PUBLISHED, Chunk, PublishCosts, summarise
from ray_rl.env_options import EnvOptions
from ray_rl.envs.api import EnvError, EnvSpec, StepResult
from ray_rl.envs.registry import build_env, make_env
from ray_rl.episodes import EpisodeRequest
from ray_rl.interruption import deaf_children
from ray_rl.policy.acting import acting_policy
from ray_rl.policy.inference import PolicyWeights
from ray_rl.rollout import run_episodes
from ray_rl.workflow.alignment import NO_FIX

if TYPE_CHECKING:
    from ray_rl.config import EnvConfig

_END_S = 5.0
"""How long to look for the process that died, in seconds."""


class SynchronousCollector:
    """Runs as many episodes at once as it has processes, all in step.

    Args:
        env: The environment.
        n_workers: Processes.
        watchdog_s: Seconds that a reset or a step may take before `completed` raises.
    """

    def __init__(self, env: EnvConfig, n_workers: int, watchdog_s: float) -> None:
        self._env = _LockstepEnv(env, n_workers, watchdog_s)
        self._waiting: list[Sequence[EpisodeRequest]] = []
        self._weights: PolicyWeights | None = None
        self._policy_version = 0
        self.publish_costs = PublishCosts()

    def publish(self, weights: PolicyWeights, policy_version: int) -> None:
        """Make weights current; the policy acts in this process, so nothing has to be copied."""
        self._weights, self._policy_version = weights, policy_version
        self.publish_costs = self.publish_costs.plus(0, 0.0)

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        """Queue episodes in groups that run in step."""
        if self._weights is None:
            raise ValueError(NOT_PUBLISHED)
        n = self._env.max_batch
        self._waiting += [requests[start : start + n] for start in range(0, len(requests), n)]

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        """Run and yield groups; looks at the time between groups only."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._weights and self._waiting and (deadline is None or time.monotonic() < deadline):
            requests = self._waiting.pop(0)
            self._env.barrier_s = 0.0
            batch = run_episodes(self._env, acting_policy(self._weights), requests, self._policy_version)
            summary = summarise(batch, requests[0].purpose, psutil.Process().memory_info().rss)
            yield Chunk(replace(summary, n_together=len(requests), barrier_s=self._env.barrier_s), batch)

    def close(self) -> None:
        """End all processes."""
        self._waiting.clear()
        self._env.close()

    def __enter__(self) -> Self:
        """Return the collector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class _LockstepEnv:
    """A `BatchedEnv` over processes that each hold one environment."""

    def __init__(self, env: EnvConfig, n_workers: int, watchdog_s: float) -> None:
        self.max_batch = n_workers
        self.barrier_s = 0.0
        self._watchdog_s = watchdog_s
        self.spec, self.alignment = _spec_of(env), env.alignment
        self._options = env.options
        self._vector: AsyncVectorEnv | None = self._start()
        self._n = 0
        self._masks: NDArray[np.bool_] = np.zeros((0, self.spec.n_actions), dtype=np.bool_)

    def _start(self) -> AsyncVectorEnv:
        with deaf_children():
            return AsyncVectorEnv(
                [partial(_WorkerEnv, self._options, slot) for slot in range(self.max_batch)],
                shared_memory=True,
                copy=True,
                context="spawn",
                autoreset_mode=AutoresetMode.DISABLED,
            )

    def reset(self, requests: Sequence[EpisodeRequest]) -> NDArray[Any]:
        self._n = len(requests)
        if self._vector is None:
            self._vector = self._start()
        with self._answering(self._vector):
            self._vector.reset_async(options={"requests": tuple(requests)})
            seen, info = self._vector.reset_wait(timeout=self._watchdog_s)
        return self._take_in(seen, info)

    def action_masks(self) -> NDArray[np.bool_] | None:
        return self._masks if self.spec.has_action_masks else None

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        everywhere = np.zeros(self.max_batch, dtype=np.int64)
        everywhere[: self._n] = actions
        assert self._vector is not None, "reset comes before step"
        with self._answering(self._vector):
            self._vector.step_async(everywhere)
            seen, rewards, terminated, truncated, info = self._vector.step_wait(timeout=self._watchdog_s)
        observations = self._take_in(seen, info)
        running = seen["step_s"][: self._n, 0]
        self.barrier_s += float((running.max() - running).sum())
        n = self._n
        verdicts = seen["verdict"][:n, 0] if self.spec.follows_order else None
        return StepResult(observations, rewards[:n].astype(np.float32), terminated[:n], truncated[:n], verdicts)

    @contextmanager
    def _answering(self, vector: AsyncVectorEnv) -> Iterator[None]:
        """Find the environment that does not answer, and end all processes.

        What the others would still answer must not be taken for the answer to a later question; the next reset starts
        new processes.
        """
        try:
            yield
        except multiprocessing.TimeoutError as error:
            silent = [not pipe.poll() for pipe in vector.parent_pipes]
            self.close()
            cause = f"no answer for {self._watchdog_s:g} s (the environment hangs, or --watchdog-s is too short for it)"
            raise EnvError(int(np.argmax(silent)), cause) from error
        except (EOFError, OSError) as error:
            wait([process.sentinel for process in vector.processes], _END_S)
            dead = [not process.is_alive() for process in vector.processes]
            self.close()
            raise EnvError(int(np.argmax(dead)), "its worker process died") from error

    def _take_in(self, seen: dict[str, NDArray[Any]], info: dict[str, Any]) -> NDArray[Any]:
        if "error" in info:
            slot = int(np.argmax(info["_error"]))
            raise EnvError(slot, str(info["error"][slot]))
        self._masks = seen["allowed"][: self._n].astype(np.bool_)
        return seen["view"][: self._n]

    def close(self) -> None:
        """Kill the processes: `AsyncVectorEnv.close` waits for answers that may never come."""
        if self._vector is None:
            return
        for process in self._vector.processes:
            process.kill()
            process.join()
        for pipe in self._vector.parent_pipes:
            pipe.close()
        self._vector.closed = True
        self._vector = None


def _spec_of(config: EnvConfig) -> EnvSpec:
    env = make_env(config)
    try:
        return env.spec
    finally:
        env.close()


class _WorkerEnv(gymnasium.Env[Any, Any]):
    """One environment in a process of its own, as `AsyncVectorEnv` wants it; errors come home as information."""

    def __init__(self, options: EnvOptions, slot: int) -> None:
        self._env = build_env(options)
        self._slot = slot
        spec = self._env.spec
        self._blank = np.zeros(spec.observation_size, dtype=np.uint8 if spec.observation_bits else np.float32)
        self.action_space = spaces.Discrete(spec.n_actions)
        view = (
            spaces.Box(0, 1, (spec.observation_size,), np.uint8)
            if spec.observation_bits
            else spaces.Box(-np.inf, np.inf, (spec.observation_size,), np.float32)
        )
        self.observation_space = spaces.Dict(
            {
                "view": view,
                "allowed": spaces.Box(0, 1, (spec.n_actions,), np.uint8),
                "verdict": spaces.Box(-1, 1, (1,), np.int8),
                "step_s": spaces.Box(0, np.inf, (1,), np.float64),
            }
        )
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        requests = options["requests"] if options else ()
        self._running = self._slot < len(requests)
        if not self._running:
            return self._seen(self._blank, 0.0), {}
        try:
            return self._seen(self._env.reset([requests[self._slot]])[0], 0.0), {}
        except Exception as error:
            return self._seen(self._blank, 0.0), self._fail(error)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self._running:
            return self._seen(self._blank, 0.0), 0.0, False, False, {}
        started = time.perf_counter()
        try:
            result = self._env.step(np.array([action]))
            seen = self._seen(result.observations[0], time.perf_counter() - started, result.verdicts)
        except Exception as error:
            return self._seen(self._blank, 0.0), 0.0, False, False, self._fail(error)
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        self._running = not (terminated or truncated)
        return seen, float(result.rewards[0]), terminated, truncated, {}

    def _seen(
        self, observation: NDArray[Any], step_s: float, verdicts: NDArray[np.int8] | None = None
    ) -> dict[str, Any]:
        masks = self._env.action_masks() if self._running else None
        allowed = np.ones(self._env.spec.n_actions, dtype=np.uint8) if masks is None else masks[0].astype(np.uint8)
        verdict = np.full(1, NO_FIX, dtype=np.int8) if verdicts is None else verdicts[:1]
        return {"view": observation, "allowed": allowed, "verdict": verdict, "step_s": np.array([step_s])}

    def _fail(self, error: Exception) -> dict[str, Any]:
        self._running = False
        return {"error": str(error) if isinstance(error, EnvError) else f"{type(error).__name__}: {error}"}

    def close(self) -> None:
        self._env.close()
