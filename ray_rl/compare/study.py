"""``ray-rl compare``: the methods on the same episodes in interleaved rounds, and what follows from the figures."""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psutil

from ray_rl.bench.machine import Machine, this_machine
from ray_rl.bench.rounds import Spread
from ray_rl.collect.api import Collector
from ray_rl.collect.factory import default_n_workers, make_collector
from ray_rl.compare.measure import MethodRun, TimeShares, measure_method
from ray_rl.compare.naive import NaiveCollector
from ray_rl.config import CollectConfig, CollectorName, EnvConfig, UserError
from ray_rl.envs.registry import make_env
from ray_rl.episodes import EpisodeError
from ray_rl.policy.inference import PolicyWeights
from ray_rl.policy.random_weights import random_weights

MethodName = Literal[CollectorName, "naive"]
"""A collector, or what research code often does in its place."""

METHODS: tuple[MethodName, ...] = ("sequential", "synchronous", "executor", "ray-actors", "ray-tasks")
"""Compared unless others are named."""

DEPENDENCIES: dict[MethodName, str] = {
    "naive": "torch",
    "sequential": "none",
    "synchronous": "gymnasium",
    "executor": "none",
    "ray-actors": "ray",
    "ray-tasks": "ray",
}
"""What a method needs besides numpy and numba."""

_WORKER_BYTES = 120 * 2**20
"""Memory that one more worker process needs, for the estimate before the start; a little above what is measured."""


@dataclass(frozen=True, slots=True)
class Study:
    """What to compare.

    Attributes:
        methods: Methods, in the order of the table.
        env: What the episodes run in.
        n_workers: Worker counts; more than one makes a scaling curve.
        n_episodes: Most episodes of a measurement.
        seconds: Time for which finished episodes are counted.
        n_updates: Publications of weights per measurement.
        rounds: Measurements of each method, interleaved.
        hidden_sizes: Units of the hidden layers of the policy that acts.
        seed: Decides the episodes.
    """

    methods: tuple[MethodName, ...]
    env: EnvConfig
    n_workers: tuple[int, ...]
    n_episodes: int
    seconds: float = 10.0
    n_updates: int = 1
    rounds: int = 3
    hidden_sizes: tuple[int, ...] = (64, 64)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class MethodResult:
    """A method at one number of workers.

    Attributes:
        method: Its name.
        n_workers: Workers.
        runs: One measurement per round.
        failure: Why it could not be run, or stopped; None when all rounds went well.
    """

    method: MethodName
    n_workers: int
    runs: tuple[MethodRun, ...]
    failure: str | None = None

    @property
    def episodes_per_s(self) -> Spread:
        """Over the rounds."""
        return Spread(tuple(run.episodes_per_s for run in self.runs))

    def median(self, figure: Callable[[MethodRun], float]) -> float:
        """Median over the rounds of a figure of a run."""
        return statistics.median(figure(run) for run in self.runs)

    @property
    def shares(self) -> TimeShares:
        """Medians over the rounds."""
        names = TimeShares.__dataclass_fields__
        return TimeShares(*(statistics.median(getattr(run.shares, name) for run in self.runs) for name in names))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a comparison measured.

    Attributes:
        machine: Where.
        study: What was compared.
        environment: Name of the environment, with what distinguishes its figures.
        weights_bytes: Bytes of the policy.
        results: One per method and number of workers.
        stopped: Whether it was interrupted before its end.
    """

    machine: Machine
    study: Study
    environment: str
    weights_bytes: int
    results: tuple[MethodResult, ...]
    stopped: bool = False

    def efficiency(self, result: MethodResult) -> float | None:
        """Share of the pace of as many workers that wait for nothing but their environments.

        Where the environment knows how long its episodes take, that is the ideal; else it is the pace of the
        sequential method, times the workers. None when the sequential method was not measured.
        """
        ideals = [run.ideal_episode_s for run in result.runs]
        if all(ideal_s is not None for ideal_s in ideals):
            return statistics.median(
                run.episodes_per_s * (run.ideal_episode_s or 0.0) / result.n_workers for run in result.runs
            )
        alone = next((r for r in self.results if r.method == "sequential" and r.runs), None)
        if alone is None:
            return None
        return result.episodes_per_s.median / alone.episodes_per_s.median / result.n_workers

    def ideal_episodes_per_s(self, n_workers: int) -> float | None:
        """Pace of workers that wait for nothing but their environments; None where that is not known.

        Args:
            n_workers: How many.
        """
        known_s = [run.ideal_episode_s for result in self.results for run in result.runs if run.ideal_episode_s]
        if known_s:
            return n_workers / statistics.median(known_s)
        alone = next((r for r in self.results if r.method == "sequential" and r.runs), None)
        return None if alone is None else n_workers * alone.episodes_per_s.median

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "machine": self.machine.to_json(),
            "study": asdict(self.study) | {"env": self.study.env.model_dump(mode="json")},
            "environment": self.environment,
            "weights_bytes": self.weights_bytes,
            "stopped": self.stopped,
            "results": [
                {
                    "method": result.method,
                    "n_workers": result.n_workers,
                    "failure": result.failure,
                    "efficiency": self.efficiency(result) if result.runs else None,
                    "runs": [asdict(run) | {"episodes_per_s": run.episodes_per_s} for run in result.runs],
                }
                for result in self.results
            ],
        }


def compare(study: Study, on_progress: Callable[[str], None] = lambda text: None) -> Comparison:
    """Run a comparison.

    A method that cannot run here, or fails, keeps its row with the reason; the others go on. Ctrl-C ends the comparison
    with what has been measured; where that is nothing, it is passed on.

    Args:
        study: What to compare.
        on_progress: Called with a line before each measurement.

    Raises:
        UserError: When the environment does not exist, or the workers do not fit the memory.
    """
    check_memory(study)
    machine = this_machine()
    env = make_env(study.env)
    spec = env.spec
    env.close()
    weights = random_weights(spec.observation_size, study.hidden_sizes, spec.n_actions)
    plan: list[tuple[MethodName, int]] = [
        (method, n) for n in study.n_workers for method in study.methods if method != "sequential"
    ]
    if "sequential" in study.methods:
        plan.insert(0, ("sequential", 1))
    runs: dict[tuple[MethodName, int], list[MethodRun]] = {key: [] for key in plan}
    failures: dict[tuple[MethodName, int], str] = {}
    stopped = False
    try:
        for number in range(study.rounds):
            for method, n_workers in [key for key in plan if key not in failures]:
                on_progress(f"round {number + 1} of {study.rounds}: {method}, {workers_text(n_workers)}")
                try:
                    runs[method, n_workers].append(_measure(study, method, n_workers, weights))
                except Exception as error:
                    failures[method, n_workers] = _first_cause(error)
    except KeyboardInterrupt:
        if not any(runs.values()):
            raise
        stopped = True
        failures |= {key: "stopped before it was measured" for key in plan if key not in failures and not runs[key]}
    results = tuple(MethodResult(method, n, tuple(runs[method, n]), failures.get((method, n))) for method, n in plan)
    return Comparison(machine, study, spec.name, weights.n_bytes, results, stopped)


def workers_text(count: int) -> str:
    """A number of workers in words."""
    return "1 worker" if count == 1 else f"{count} workers"


def _measure(study: Study, method: MethodName, n_workers: int, weights: PolicyWeights) -> MethodRun:
    return measure_method(
        open_collector(study.env, method, n_workers),
        study.env,
        weights,
        n_workers=n_workers,
        n_episodes=study.n_episodes,
        seconds=study.seconds,
        n_updates=study.n_updates,
        seed=study.seed,
    )


@contextmanager
def open_collector(env: EnvConfig, method: MethodName, n_workers: int) -> Iterator[Collector]:
    """What `measure_method` measures: a collector, or the naive stand-in; released at the end."""
    if method == "naive":
        with NaiveCollector(env, n_workers) as naive:
            yield naive
    else:
        with make_collector(CollectConfig(collector=method, n_workers=n_workers), env) as collector:
            yield collector


def check_memory(study: Study) -> None:
    """Refuse more workers than memory allows, before anything is started.

    Raises:
        UserError: With the estimate.
    """
    needed = max(study.n_workers) * _WORKER_BYTES
    available = psutil.virtual_memory().available
    if needed > available:
        fits = available // _WORKER_BYTES
        raise UserError(
            f"{max(study.n_workers)} workers need about {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are "
            f"free: use --n-workers {fits} or fewer"
        )


def _first_cause(error: BaseException) -> str:
    """One line: what went wrong first."""
    if isinstance(error, EpisodeError):
        return f"episode {error.request.index}: {error.cause}"
    if isinstance(error, UserError):
        return str(error)
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().splitlines() or traceback.format_exception_only(error)
    return f"{type(error).__name__}: {text[0]}"


def recommended_workers(results: Sequence[MethodResult]) -> int:
    """The smallest number of workers of one method that reaches 95 % of its best throughput.

    Args:
        results: One method at several numbers of workers.
    """
    best = max(result.episodes_per_s.median for result in results)
    return min(r.n_workers for r in results if r.episodes_per_s.median >= 0.95 * best)


def default_worker_counts(env: EnvConfig) -> tuple[int, ...]:
    """Workers when none are named: the CPUs, or many where steps wait instead of computing."""
    return (100,) if env.env == "latency" else (default_n_workers(),)
