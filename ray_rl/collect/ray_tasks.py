"""Stateless Ray tasks: the default. Weights enter the object store once, every task takes a reference to them.

No more tasks are in flight than can run, but for a few on a single machine; the rest waits here, so that a cluster that
grows or shrinks finds work and is not drowned in it. Each task returns two objects: a small summary for the driver, and
the episodes, which go from the worker's store to the learner's without passing through the driver. A task that dies
with its worker runs again elsewhere. One that takes far longer than others (on a slow node, or behind a link that is
cut) is sent once more with the same weights, before anything that waits; the copy that finishes first counts. The
others may run to their end: what is merely slow (a worker that has just started) is left alone, and only what goes on
for minutes, or while nothing else comes to an end, is taken for stuck and killed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import ray
from ray.exceptions import RayError

from ray_rl.collect.api import NOT_PUBLISHED, Chunk, ChunkSummary, PublishCosts
from ray_rl.collect.backlog import Backlog, Punctuality, Watchdog
from ray_rl.collect.worker import run_chunk, step_back
from ray_rl.env_options import EnvOptions
from ray_rl.episodes import EpisodeBatch, EpisodeError, EpisodeRequest, PackedRequests, packed, unpacked
from ray_rl.policy.inference import PolicyWeights
from ray_rl.ray_runtime import (
    ask_for_cpus,
    cluster_cpus,
    cluster_nodes,
    first_cause,
    put_once,
    wait_some,
    what_is_busy,
)

if TYPE_CHECKING:
    from ray_rl.config import EnvConfig

_QUEUED_PER_CPU = 1
"""Tasks per CPU that wait for another to end where there is one node, so that its worker goes on at once: without them
it idles for a few per cent of its time. With several nodes none may wait: Ray asks one after the other, without a
pause, for a worker that none of them has, 2,400 times a second for 24 workers: half a core of the driver."""
_GROWTH = 2
"""Times the CPUs of a cluster that are asked for at once, where no number is given."""
_RETRIES = 3
"""Times that a task runs again when its worker or node dies; exceptions of the environment are never retried."""
_COPIES = 3
"""Most tasks that run the same chunk at once."""
_LOOK_S = 1.0
"""How often to look for tasks that are late and for nodes that joined or left, in seconds."""
_REMIND_S = 60.0
"""How often to say that the cluster has no CPU, in seconds."""

_log = logging.getLogger(__name__)


@ray.remote(num_cpus=1, num_returns=2, max_retries=_RETRIES)
def collect_chunk(
    weights: PolicyWeights, env: EnvOptions, requests: PackedRequests, policy_version: int
) -> tuple[ChunkSummary, EpisodeBatch]:
    """Run a chunk of episodes; stateless: what it returns depends on its arguments alone."""
    step_back()
    return run_chunk(env, weights, unpacked(requests), policy_version)


@dataclass(eq=False)
class _Run:
    """A chunk under way.

    Attributes:
        requests: Its episodes.
        weights: Reference to what acts in them, in every copy.
        policy_version: Of the weights.
        sent_at: When the latest copy was sent, by the monotonic clock.
        number: Of that sending; tasks start in the order in which they were sent.
        copies: Reference to the summary of each task that runs it, with that to its episodes and the number of its
            sending.
    """

    requests: list[EpisodeRequest]
    weights: Any
    policy_version: int
    sent_at: float = 0.0
    number: int = 0
    copies: dict[ray.ObjectRef[Any], tuple[ray.ObjectRef[Any], int]] = field(default_factory=dict)


class RayTasksCollector:
    """Runs episodes as stateless tasks on the connected Ray.

    Args:
        env: The environment.
        n_workers: Tasks that run at once; None: as many as the cluster has CPUs, also when it grows.
        episodes_per_chunk: Episodes of a task; None: chosen by measured durations.
        watchdog_s: Seconds without a finished task after which `completed` raises.
        autoscale_cpus: Most CPUs to ask the cluster's autoscaler for; 0: for twice those that are there, again and
            again, while episodes wait.
        late_s: Shortest time after which a task may count as late, in seconds.
        stuck_s: Shortest time after which a copy that was outrun may count as stuck while others finish, in seconds.
            Workers that start while a machine compiles or many others start take minutes; killed and begun anew they
            never would.
        ray_outlives_it: Whether Ray goes on when the collector is closed, so that tasks under way must be ended. One
            that ends with it ends them; killing their workers just before makes Ray report deaths while it ends.
    """

    def __init__(
        self,
        env: EnvConfig,
        n_workers: int | None,
        episodes_per_chunk: int | None,
        watchdog_s: float,
        autoscale_cpus: int = 0,
        late_s: float = 5.0,
        stuck_s: float = 300.0,
        ray_outlives_it: bool = True,
    ) -> None:
        self._ray_outlives_it = ray_outlives_it
        self._env = env.options
        self._n_workers = n_workers
        self._n_cpus, self._n_nodes = cluster_cpus(), cluster_nodes()
        self._backlog = Backlog(n_workers or max(1, self._n_cpus), episodes_per_chunk)
        self._watchdog = Watchdog(watchdog_s)
        self._punctuality = Punctuality(late_s)
        self._stuck_s = stuck_s
        self._autoscale_cpus = autoscale_cpus
        self._usable_cpus = self._asked_for_cpus = 0
        self._looked_at = time.monotonic()
        self._silent_until = self._looked_at
        self._running: dict[ray.ObjectRef[Any], _Run] = {}
        self._late: list[_Run] = []
        self._outrun: dict[ray.ObjectRef[Any], float] = {}
        self._heard_from: set[tuple[str, int]] = set()
        self._n_sent = 0
        self._latest_done = 0
        self._finished: deque[Chunk] = deque()
        self._failures: deque[Exception] = deque()
        self._weights_ref: Any = None
        self._policy_version = 0
        self.publish_costs = PublishCosts()

    def publish(self, weights: PolicyWeights, policy_version: int) -> None:
        """Put weights into the object store, once."""
        started = time.perf_counter()
        self._weights_ref, n_bytes = put_once(weights, weights.n_bytes)
        self._policy_version = policy_version
        self.publish_costs = self.publish_costs.plus(n_bytes, time.perf_counter() - started)

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        """Queue episodes and start as many tasks as there is room for."""
        if self._weights_ref is None:
            raise ValueError(NOT_PUBLISHED)
        self._backlog.add(requests)
        if not self._running:
            self._watchdog.heard()
        self._usable_cpus = max(self._usable_cpus, len(requests))
        self._start_tasks()
        self._ask_autoscaler()

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        """Yield chunks as their tasks finish: at each wake-up all that are ready; new tasks start at once."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._finished or self._failures or self._running:
            if not (self._finished or self._failures):
                done = wait_some(list(self._running), min(self._watchdog.wait_s(deadline), _LOOK_S))
                if time.monotonic() - self._looked_at >= _LOOK_S:
                    self._look_around()
                if not done:
                    self._watchdog.check([run.requests for run in self._runs()], what_is_busy)
                self._take_in(done)
            while self._finished:
                yield self._finished.popleft()
            if self._failures:
                raise self._failures.popleft()
            if deadline is not None and time.monotonic() >= deadline:
                return

    def _runs(self) -> list[_Run]:
        """Chunks under way, in the order in which they were started."""
        return list(dict.fromkeys(self._running.values()))

    def _look_around(self) -> None:
        """Follow the cluster as it grows and shrinks, and send copies of what is late."""
        self._looked_at = time.monotonic()
        self._n_cpus, self._n_nodes = cluster_cpus(), cluster_nodes()
        if self._n_cpus == 0:  # a cluster without workers, for now: silence means nothing
            self._watchdog.heard()
            if self._looked_at >= self._silent_until:
                _log.warning("waiting for the cluster's first CPU: no node that may run episodes has joined")
                self._silent_until = self._looked_at + _REMIND_S
        if self._n_workers is None:
            self._backlog.n_workers = max(1, self._n_cpus)
        self._late = [
            run
            for run in self._runs()
            if len(run.copies) < _COPIES and self._is_started(run) and self._is_late(run.sent_at, len(run.copies))
        ]
        self._look_at_outrun()
        self._start_tasks()
        self._ask_autoscaler()

    def _is_started(self, run: _Run) -> bool:
        """Whether a worker has taken up the chunk: one that was sent later is done, or there are workers for all.

        CPUs are no workers yet: until theirs have started, tasks wait for those of others.
        """
        n_workers = min(len(self._heard_from), self._backlog.n_workers)
        return run.number < self._latest_done or len(self._running) <= n_workers

    def _is_late(self, since: float, n_copies: int) -> bool:
        return self._punctuality.is_late(time.monotonic() - since, n_copies)

    def _look_at_outrun(self) -> None:
        """Forget copies that have ended since another was faster, and kill those that seem not to end.

        When nothing else ends either, they may hold the CPUs that all the rest waits for: then they have less time.
        """
        if self._outrun:
            refs = list(self._outrun)
            for ref in ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)[0]:
                del self._outrun[ref]
        long_ago = time.monotonic() - (0.0 if self._watchdog.is_half_over() else self._stuck_s)
        for ref in [r for r, since in self._outrun.items() if since < long_ago and self._is_late(since, _COPIES)]:
            ray.cancel(ref, force=True)
            del self._outrun[ref]

    def _ask_autoscaler(self) -> None:
        """Ask for as many CPUs as the episodes can use, within the limit; `close` takes it back.

        Without a limit it goes by the tasks that wait where there is one node; on several nodes none does.
        """
        limit = self._autoscale_cpus
        if not limit and self._n_nodes > 1 and self._backlog:
            limit = min(_GROWTH * max(1, self._n_cpus), self._n_workers or self._usable_cpus)
        wanted = min(limit, self._usable_cpus)
        if wanted > self._asked_for_cpus:
            ask_for_cpus(wanted)
            self._asked_for_cpus = wanted

    def _start_tasks(self) -> None:
        """Send copies of what is late, then what waits, as far as there is room; one in any case.

        Copies that were outrun take room, but may never end: what waits must not depend on them.
        """
        while not self._running or len(self._running) + len(self._outrun) < self._most_tasks():
            if self._late:
                run = self._late.pop(0)
                if run.copies:  # not done by now
                    self._send(run)
            elif self._backlog:
                self._send(_Run(self._backlog.take(), self._weights_ref, self._policy_version))
            else:
                return

    def _most_tasks(self) -> int:
        """Tasks that may be in flight."""
        if self._n_nodes > 1:
            return max(1, min(self._backlog.n_workers, self._n_cpus))
        return (1 + _QUEUED_PER_CPU) * self._backlog.n_workers

    def _send(self, run: _Run) -> None:
        requests = packed(run.requests)
        summary, batch = cast("Any", collect_chunk).remote(run.weights, self._env, requests, run.policy_version)
        self._n_sent += 1
        run.number, run.sent_at = self._n_sent, time.monotonic()
        run.copies[summary] = batch, run.number
        self._running[summary] = run

    def _take_in(self, done: list[ray.ObjectRef[Any]]) -> None:
        """Keep what succeeded and what failed, and go on with what waits."""
        for summary_ref, summary in zip(done, get_summaries(done), strict=True):
            run = self._running.pop(summary_ref, None)
            if run is None:  # another copy was there first
                continue
            batch_ref, number = run.copies.pop(summary_ref)
            if isinstance(summary, RayError) and run.copies:  # its copy may still make it
                continue
            self._latest_done = max(self._latest_done, number)
            self._drop_copies(run)
            if isinstance(summary, Exception):
                self._failures.append(name_episode(summary, run.requests, _RETRIES))
            else:
                self._punctuality.learn_from(time.monotonic() - run.sent_at)
                self._backlog.learn_from(summary)
                self._heard_from.add((summary.node, summary.pid))
                self._finished.append(Chunk(summary, batch_ref))
        if done:
            self._watchdog.heard()
            self._start_tasks()

    def _drop_copies(self, run: _Run) -> None:
        """Wait no more for the tasks that run a chunk which has finished elsewhere.

        Killing their processes at once would hit those that are slow because they have just started, and whoever
        starts in their place would be as slow: a cluster that grows would come to a halt.
        """
        for summary_ref in run.copies:
            del self._running[summary_ref]
            self._outrun[summary_ref] = time.monotonic()
        run.copies.clear()

    def close(self) -> None:
        """End what is running, forget the weights, and ask for no more CPUs."""
        if self._ray_outlives_it:
            for summary_ref in [*self._running, *self._outrun]:
                ray.cancel(summary_ref, force=True)
        self._running.clear()
        self._outrun.clear()
        self._late.clear()
        self._finished.clear()
        self._failures.clear()
        self._backlog.clear()
        self._weights_ref = None
        if self._asked_for_cpus:
            ask_for_cpus(0)
            self._asked_for_cpus = 0

    def __enter__(self) -> Self:
        """Return the collector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def get_summaries(refs: list[ray.ObjectRef[Any]]) -> list[ChunkSummary | Exception]:
    """Fetch summaries in one call, and only when one of them failed, one by one."""
    try:
        return list(ray.get(refs))
    except Exception:
        return [_get_summary(ref) for ref in refs]


def _get_summary(ref: ray.ObjectRef[Any]) -> ChunkSummary | Exception:
    try:
        summary: ChunkSummary = ray.get(ref)
    except Exception as error:
        return first_cause(error)
    return summary


def name_episode(error: Exception, requests: Sequence[EpisodeRequest], retries: int) -> Exception:
    """Give failures of Ray itself (a worker that died again and again) the name of the chunk's first episode."""
    if not isinstance(error, RayError):
        return error
    text = str(error).strip().splitlines()[0]
    cause = f"its worker died {retries + 1} times ({type(error).__name__}: {text})"
    return EpisodeError(requests[0], cause, str(error), requests)
