"""A pool of processes: `ProcessPoolExecutor`, drained as completed. One machine, no Ray.

The weights of an update are written to shared memory once; each process copies them from there when it first meets
their version. Episodes come back through the pool's pipe, pickled.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing.shared_memory import SharedMemory
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ray_rl.collect.api import Chunk, ChunkSummary, PublishCosts
from ray_rl.collect.backlog import Backlog, Watchdog
from ray_rl.collect.worker import run_chunk
from ray_rl.config import EnvConfig
from ray_rl.episodes import EpisodeBatch, EpisodeError, EpisodeRequest
from ray_rl.policy.inference import PolicyWeights

_CHUNKS_PER_WORKER = 2
_REBUILDS = 3
"""Times that the pool is built anew after a process died, before its episodes are given up."""


class ExecutorCollector:
    """Runs episodes in a pool of spawned processes.

    Args:
        env: The environment.
        n_workers: Processes.
        episodes_per_chunk: Episodes of a chunk; None: chosen by measured durations.
        watchdog_s: Seconds without a finished chunk after which `completed` raises.
    """

    def __init__(self, env: EnvConfig, n_workers: int, episodes_per_chunk: int | None, watchdog_s: float) -> None:
        self._env = env
        self._n_workers = n_workers
        self._backlog = Backlog(n_workers, episodes_per_chunk)
        self._watchdog = Watchdog(watchdog_s)
        self._pool = _make_pool(n_workers)
        self._rebuilds_left = _REBUILDS
        self._running: dict[Future[tuple[ChunkSummary, EpisodeBatch]], tuple[list[EpisodeRequest], int]] = {}
        self._finished: deque[Chunk] = deque()
        self._weights: dict[int, _SharedWeights] = {}
        self._policy_version = -1
        self.publish_costs = PublishCosts()

    def publish(self, weights: PolicyWeights, policy_version: int) -> None:
        """Write weights to shared memory, once; those that nobody needs any more are freed."""
        started = time.perf_counter()
        if policy_version in self._weights:
            self._weights.pop(policy_version).free()
        self._weights[policy_version] = _SharedWeights(weights)
        self._policy_version = policy_version
        self._free_unused_weights()
        self.publish_costs = self.publish_costs.plus(weights.n_bytes, time.perf_counter() - started)

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        """Queue episodes and give every process its share."""
        self._backlog.add(requests)
        if not self._running:
            self._watchdog.heard()
        self._start_chunks()

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        """Yield chunks as they finish."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._finished or self._running:
            if not self._finished:
                done, _ = wait(self._running, self._watchdog.wait_s(deadline), FIRST_COMPLETED)
                self._take_in(done)
            while self._finished:
                yield self._finished.popleft()
            if deadline is not None and time.monotonic() >= deadline:
                return
            self._watchdog.check([requests for requests, _ in self._running.values()])

    def _start_chunks(self) -> None:
        if self._backlog and not self._weights:
            raise ValueError("publish weights before episodes can run")
        while self._backlog and len(self._running) < _CHUNKS_PER_WORKER * self._n_workers:
            self._start(self._backlog.take(), self._policy_version)

    def _start(self, requests: list[EpisodeRequest], version: int) -> None:
        shared = self._weights[version]
        future = self._pool.submit(
            _run_chunk, self._env, shared.name, shared.n_sizes, shared.n_values, requests, version
        )
        self._running[future] = (requests, version)

    def _take_in(self, done: set[Future[tuple[ChunkSummary, EpisodeBatch]]]) -> None:
        """Keep what succeeded, run again what died with its process, then raise the first failure."""
        failure: Exception | None = None
        lost: list[tuple[list[EpisodeRequest], int]] = []
        for future in done:
            requests, version = self._running.pop(future)
            error = future.exception()
            if error is None:
                summary, batch = future.result()
                self._backlog.learn_from(summary)
                self._finished.append(Chunk(summary, batch))
            elif isinstance(error, BrokenProcessPool):
                lost.append((requests, version))
            elif isinstance(error, Exception):
                failure = failure or error
            else:
                raise error
        if lost:
            self._rebuild(lost)
        if failure is not None:
            raise failure
        if done:
            self._watchdog.heard()
            self._start_chunks()

    def _rebuild(self, lost: list[tuple[list[EpisodeRequest], int]]) -> None:
        """A dead process breaks the whole pool: build another and run everything again that was in it."""
        lost = [*lost, *self._running.values()]
        self._running.clear()
        _end_pool(self._pool)
        if self._rebuilds_left == 0:
            raise EpisodeError(
                lost[0][0][0], f"worker processes died {_REBUILDS + 1} times while its chunk was running"
            )
        self._rebuilds_left -= 1
        self._pool = _make_pool(self._n_workers)
        for requests, version in lost:
            self._start(requests, version)

    def _free_unused_weights(self) -> None:
        needed = Counter(version for _, version in self._running.values())
        for version in [v for v in self._weights if v != self._policy_version and not needed[v]]:
            self._weights.pop(version).free()

    def close(self) -> None:
        """End all processes, whatever they are doing, and free the shared memory."""
        self._running.clear()
        self._finished.clear()
        _end_pool(self._pool)
        while self._weights:
            self._weights.popitem()[1].free()

    def __enter__(self) -> Self:
        """Return the collector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class _SharedWeights:
    """Weights in a block of shared memory: the sizes, then the values."""

    def __init__(self, weights: PolicyWeights) -> None:
        self.n_sizes, self.n_values = len(weights.sizes), len(weights.values)
        self._block = SharedMemory(create=True, size=weights.sizes.nbytes + weights.values.nbytes)
        self.name = self._block.name
        sizes, values = _views(self._block, self.n_sizes, self.n_values)
        sizes[:], values[:] = weights.sizes, weights.values

    def free(self) -> None:
        self._block.close()
        self._block.unlink()


def _views(block: SharedMemory, n_sizes: int, n_values: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    sizes = np.ndarray(n_sizes, dtype=np.int64, buffer=block.buf)
    return sizes, np.ndarray(n_values, dtype=np.float32, buffer=block.buf, offset=sizes.nbytes)


def _make_pool(n_workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(n_workers, multiprocessing.get_context("spawn"), initializer=_ignore_interrupts)


def _end_pool(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _ignore_interrupts() -> None:
    """Ctrl-C goes to every process of the terminal; only the driver decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_chunk(
    env: EnvConfig, name: str, n_sizes: int, n_values: int, requests: Sequence[EpisodeRequest], policy_version: int
) -> tuple[ChunkSummary, EpisodeBatch]:
    return run_chunk(env, _copy_weights(name, n_sizes, n_values), requests, policy_version)


@lru_cache(maxsize=1)
def _copy_weights(name: str, n_sizes: int, n_values: int) -> PolicyWeights:
    """The weights in a block, copied once per process; every publication has a block of its own."""
    block = SharedMemory(name)
    try:
        sizes, values = _views(block, n_sizes, n_values)
        weights = PolicyWeights(sizes.copy(), values.copy())
        del sizes, values
        return weights
    finally:
        block.close()
