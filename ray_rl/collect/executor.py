"""A pool of processes: `ProcessPoolExecutor`, drained as completed. One machine, no Ray.

The weights of an update are written to shared memory once; each process copies them from there when it first meets
their version. Episodes come back through the pool's pipe, pickled.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.shared_memory import SharedMemory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ray_rl.collect.api import NOT_PUBLISHED, Chunk, ChunkSummary, PublishCosts
from ray_rl.collect.backlog import Backlog, Watchdog
from ray_rl.collect.worker import run_chunk, step_back
from ray_rl.env_options import EnvOptions
from ray_rl.episodes import EpisodeBatch, EpisodeError, EpisodeRequest, PackedRequests, packed, unpacked
from ray_rl.failures import UserError
from ray_rl.interruption import deaf_children
from ray_rl.policy.inference import PolicyWeights

if TYPE_CHECKING:
    from ray_rl.config import EnvConfig

_CHUNKS_PER_WORKER = 2
_RETRIES = 3
"""Times that a chunk runs again because a process died, before it is given up."""
_END_S = 5.0
"""How long a process may take to end when it is asked to, in seconds; then it is killed."""


@dataclass
class _Run:
    """A chunk in the pool.

    Attributes:
        requests: Its episodes.
        weights: What acts in them.
        n_deaths: Times that a process died while it was in the pool.
    """

    requests: list[EpisodeRequest]
    weights: _SharedWeights
    n_deaths: int = 0


class ExecutorCollector:
    """Runs episodes in a pool of spawned processes.

    Args:
        env: The environment.
        n_workers: Processes.
        episodes_per_chunk: Episodes of a chunk; None: chosen by measured durations.
        watchdog_s: Seconds without a finished chunk after which `completed` raises.
    """

    def __init__(self, env: EnvConfig, n_workers: int, episodes_per_chunk: int | None, watchdog_s: float) -> None:
        self._env = env.options
        self._n_workers = n_workers
        self._backlog = Backlog(n_workers, episodes_per_chunk)
        self._watchdog = Watchdog(watchdog_s)
        self._pool = make_pool(n_workers)
        self._again: deque[_Run] = deque()
        self._running: dict[Future[tuple[ChunkSummary, EpisodeBatch]], _Run] = {}
        self._finished: deque[Chunk] = deque()
        self._failures: deque[Exception] = deque()
        self._weights: _SharedWeights | None = None
        self._outdated: list[_SharedWeights] = []
        self.publish_costs = PublishCosts()

    def publish(self, weights: PolicyWeights, policy_version: int) -> None:
        """Write weights to shared memory, once; those that no chunk needs any more are freed."""
        started = time.perf_counter()
        if self._weights is not None:
            self._outdated.append(self._weights)
        self._weights = _SharedWeights(weights, policy_version)
        self._free_outdated()
        self.publish_costs = self.publish_costs.plus(weights.n_bytes, time.perf_counter() - started)

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        """Queue episodes and give every process its share."""
        if self._weights is None:
            raise ValueError(NOT_PUBLISHED)
        self._backlog.add(requests)
        if not self._running:
            self._watchdog.heard()
        self._start_chunks()

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        """Yield chunks as they finish."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._start_chunks()
        while self._finished or self._failures or self._running:
            if not (self._finished or self._failures):
                done, _ = wait(self._running, self._watchdog.wait_s(deadline), FIRST_COMPLETED)
                if not done:
                    self._watchdog.check([run.requests for run in self._running.values()])
                self._take_in(done)
            while self._finished:
                yield self._finished.popleft()
            if self._failures:
                raise self._failures.popleft()
            if deadline is not None and time.monotonic() >= deadline:
                return

    def _start_chunks(self) -> None:
        """Fill the pool, first with what has to run again."""
        while (self._again or self._backlog) and len(self._running) < _CHUNKS_PER_WORKER * self._n_workers:
            run = self._again.popleft() if self._again else self._next_run()
            try:
                with deaf_children():  # the pool starts its processes one by one, as work comes in
                    future = self._pool.submit(_run_chunk, self._env, *run.weights.place, packed(run.requests))
            except BrokenProcessPool:  # a process died since we last looked
                self._rebuild()
                self._again.append(run)
            else:
                self._running[future] = run

    def _next_run(self) -> _Run:
        assert self._weights is not None
        return _Run(self._backlog.take(), self._weights)

    def _take_in(self, done: set[Future[tuple[ChunkSummary, EpisodeBatch]]]) -> None:
        """Keep what succeeded and what failed, and go on with what waits or died with its process."""
        broken = False
        for future in done:
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                broken = True
                continue
            del self._running[future]
            if error is None:
                summary, batch = future.result()
                self._backlog.learn_from(summary)
                self._finished.append(Chunk(summary, batch))
            elif isinstance(error, Exception):
                self._failures.append(error)
            else:
                raise error
        if broken:
            self._rebuild()
        if done:
            self._watchdog.heard()
            self._start_chunks()

    def _rebuild(self) -> None:
        """Build another pool, because a dead process breaks the whole of it; what was in it will run again."""
        end_pool(self._pool)
        self._pool = make_pool(self._n_workers)
        for run in self._running.values():
            run.n_deaths += 1
            if run.n_deaths <= _RETRIES:
                self._again.append(run)
            else:
                cause = f"worker processes died {run.n_deaths} times while its chunk was running"
                self._failures.append(EpisodeError(run.requests[0], cause, chunk=run.requests))
        self._running.clear()

    def _free_outdated(self) -> None:
        needed = {run.weights.name for run in (*self._running.values(), *self._again)}
        for weights in [w for w in self._outdated if w.name not in needed]:
            self._outdated.remove(weights)
            weights.free()

    def close(self) -> None:
        """End all processes, whatever they are doing, and free the shared memory."""
        self._running.clear()
        self._again.clear()
        self._finished.clear()
        self._failures.clear()
        self._backlog.clear()
        end_pool(self._pool)
        for weights in (*self._outdated, *([self._weights] if self._weights else [])):
            weights.free()
        self._outdated.clear()
        self._weights = None

    def __enter__(self) -> Self:
        """Return the collector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class _SharedWeights:
    """Weights in a block of shared memory: the sizes, then the values.

    Attributes:
        name: Of the block.
        place: Its name, the numbers of sizes and values in it, and the policy version: what a process must know.
    """

    def __init__(self, weights: PolicyWeights, policy_version: int) -> None:
        n_sizes, n_values = len(weights.sizes), len(weights.values)
        self._block = _reserve(weights.sizes.nbytes + weights.values.nbytes)
        self.name = self._block.name
        self.place = (self.name, n_sizes, n_values, policy_version)
        sizes, values = _views(self._block, n_sizes, n_values)
        sizes[:], values[:] = weights.sizes, weights.values

    def free(self) -> None:
        self._block.close()
        self._block.unlink()


def _reserve(n_bytes: int) -> SharedMemory:
    """A block that is there: the system gives more than it has, and kills whoever writes to the rest."""
    block = SharedMemory(create=True, size=n_bytes)
    if not hasattr(os, "posix_fallocate"):  # not on macOS
        return block
    try:
        os.posix_fallocate(block._fd, 0, n_bytes)  # type: ignore[attr-defined]  # its file has no public name
    except OSError as error:
        block.close()
        block.unlink()
        raise UserError(
            f"{n_bytes / 2**20:.1f} MiB of weights do not fit the shared memory that is free ({error.strerror}): "
            "enlarge /dev/shm (docker run --shm-size=1g), or use another --collector"
        ) from error
    return block


def _views(block: SharedMemory, n_sizes: int, n_values: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    sizes = np.ndarray(n_sizes, dtype=np.int64, buffer=block.buf)
    return sizes, np.ndarray(n_values, dtype=np.float32, buffer=block.buf, offset=sizes.nbytes)


def make_pool(n_workers: int) -> ProcessPoolExecutor:
    """Processes that start afresh, and end with this one however it ends."""
    return ProcessPoolExecutor(n_workers, multiprocessing.get_context("spawn"), initializer=_begin)


def end_pool(pool: ProcessPoolExecutor) -> None:
    """End all processes of a pool, whatever they are at, and the thread that listens to them."""
    processes = list((pool._processes or {}).values())
    results: Any = pool._result_queue
    listener: Any = pool._executor_manager_thread
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_END_S)
        process.kill()
        process.join()
    # Who was killed while it wrote has left half a result, and the listener waits for the other half, which this
    # process itself could still write, and Python waits for the listener when it ends.
    if results is not None:
        results._writer.close()
    if listener is not None:
        listener.join(_END_S)


def _begin() -> None:
    """What a process does first."""
    _end_with_driver()
    step_back()


def _end_with_driver() -> None:
    """A driver that was killed closes no pool, and its workers would wait for work for ever."""
    driver = multiprocessing.parent_process()
    assert driver is not None

    def watch() -> None:
        driver.join()
        os._exit(1)

    threading.Thread(target=watch, name="driver-watch", daemon=True).start()


def _run_chunk(
    env: EnvOptions, name: str, n_sizes: int, n_values: int, policy_version: int, requests: PackedRequests
) -> tuple[ChunkSummary, EpisodeBatch]:
    return run_chunk(env, _copy_weights(name, n_sizes, n_values), unpacked(requests), policy_version)


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
