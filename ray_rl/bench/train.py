"""``ray-rl bench train``: the learner alone, the collectors alone, and both together, in alternating rounds.

A training is recorded first. The learner alone then learns from its very episodes, which is the same work to the last
bit; the collectors alone run as many episodes with weights from its middle; and the training runs end to end, strict
(collecting waits for learning) and overlapped. What the parts can do alone bounds what they can do together:

    strict:      1 / (1/a + 1/b)                one after the other, each with all cores
    overlapped:  min(a, b, cores / (p + q))     both at once, all cores always at work

with a and b the episodes per second of learner and collectors, p and q the core-seconds that they spend on an episode.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from ray_rl.bench.machine import Machine, this_machine
from ray_rl.bench.rounds import Spread
from ray_rl.bench.time_account import PARTS, account
from ray_rl.collect.api import Chunk, ChunkSummary
from ray_rl.collect.factory import default_n_workers, make_collector
from ray_rl.config import TrainConfig
from ray_rl.envs.cage2.constants import RULE_SETS
from ray_rl.envs.cage2.random_play import random_play
from ray_rl.envs.registry import make_env
from ray_rl.episodes import EpisodeRequest, episode_requests
from ray_rl.policy.inference import PolicyWeights
from ray_rl.ppo.api import LearnerState
from ray_rl.ppo.factory import assignment_of
from ray_rl.ppo.ray_learner import RayLearner
from ray_rl.ray_runtime import connection
from ray_rl.seeding import Purpose, episode_seeds
from ray_rl.trainer import train
from ray_rl.training_metrics import UpdateReport

_WARM_SHARE = 0.2
"""Share of the updates that come before the clock runs."""
_SIMULATED = 3000
"""Episodes by which the simulator alone is measured."""

MODES = {"strict": 0, "overlapped": 1}
"""Way of training, and its `max_staleness`."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a part is alone.

    Attributes:
        episodes_per_s: By the wall clock.
        core_s: Seconds of CPU time for an episode.
    """

    episodes_per_s: float
    core_s: float


@dataclass(frozen=True, slots=True)
class Training:
    """How fast training was end to end.

    Attributes:
        episodes_per_s: By the wall clock.
        parts_s: Seconds of an update by part, as `PARTS` names them.
    """

    episodes_per_s: float
    parts_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """Everything measured once.

    Attributes:
        cores: CPUs at hand.
        learner: The learner alone.
        collectors: The collectors alone.
        trainings: End to end, by mode.
    """

    cores: int
    learner: Pace
    collectors: Pace
    trainings: dict[str, Training]

    def bound(self, mode: str) -> float:
        """Episodes per second that learner and collectors, measured alone, allow together in a mode."""
        a, b = self.learner.episodes_per_s, self.collectors.episodes_per_s
        if MODES[mode] == 0:
            return 1 / (1 / a + 1 / b)
        return min(a, b, self.cores / (self.learner.core_s + self.collectors.core_s))


@dataclass(frozen=True, slots=True)
class TrainBench:
    """Result of the benchmark.

    Attributes:
        machine: Where it was measured.
        config: The training, as plain JSON values.
        figures: Episodes per second of each part, and shares of the bounds (0…1), by name.
        core_s: Core-seconds of an episode, by part.
        parts_s: Seconds of an update by part, in each mode.
    """

    machine: Machine
    config: Mapping[str, Any]
    figures: Mapping[str, Spread]
    core_s: Mapping[str, Spread]
    parts_s: Mapping[str, Mapping[str, Spread]]

    @classmethod
    def of_rounds(cls, machine: Machine, config: TrainConfig, rounds: Sequence[Round]) -> TrainBench:
        """Sum up what was measured."""

        def spread(figure: Callable[..., float]) -> Spread:
            return Spread(tuple(figure(one) for one in rounds))

        figures = {
            "learner alone": spread(lambda r: r.learner.episodes_per_s),
            "collectors alone": spread(lambda r: r.collectors.episodes_per_s),
        }
        for mode in MODES:
            figures[f"end to end, {mode}"] = spread(lambda r, m=mode: r.trainings[m].episodes_per_s)
            figures[f"bound, {mode}"] = spread(lambda r, m=mode: r.bound(m))
            figures[f"share of the bound, {mode}"] = figures[f"end to end, {mode}"].over(figures[f"bound, {mode}"])
        core_s = {
            "learner alone": spread(lambda r: r.learner.core_s),
            "collectors alone": spread(lambda r: r.collectors.core_s),
        }
        parts_s = {
            mode: {part: Spread(tuple(one.trainings[mode].parts_s[part] for one in rounds)) for part in PARTS}
            for mode in MODES
        }
        return cls(machine, config.model_dump(mode="json"), figures, core_s, parts_s)

    @classmethod
    def of_runs(cls, found: Sequence[Mapping[str, Any]]) -> TrainBench:
        """Join results that `to_json` gave, of one training measured several times.

        Raises:
            KeyError, TypeError: When one of them is something else.
        """

        def joined(tables: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
            return {name: Spread(tuple(chain(*(table[name]["values"] for table in tables)))) for name in tables[0]}

        return cls(
            Machine(**found[0]["machine"]),
            found[0]["config"],
            joined([one["figures"] for one in found]),
            joined([one["core_s_per_episode"] for one in found]),
            {mode: joined([one["parts_s"][mode] for one in found]) for mode in MODES},
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""

        def plain(spreads: Mapping[str, Spread]) -> dict[str, Any]:
            return {name: spread.to_json() for name, spread in spreads.items()}

        return {
            "bench": "train",
            "machine": self.machine.to_json(),
            "config": self.config,
            "figures": plain(self.figures),
            "core_s_per_episode": plain(self.core_s),
            "parts_s": {mode: plain(parts) for mode, parts in self.parts_s.items()},
        }


def bench_train(config: TrainConfig, rounds: int, say: Callable[[str], None] = print) -> TrainBench:
    """Measure a training and its parts.

    Args:
        config: The training, on `ray-tasks` in the built-in simulator; its run folder is not used.
        rounds: Times that everything is measured.
        say: Told of every step.
    """
    machine = this_machine()
    n_workers = config.collect.n_workers or default_n_workers()
    with connection(None, n_workers), _learner(config) as learner:
        say(f"recording a training of {config.n_updates} updates")
        recording = record(config, learner)
        measured = []
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            step_s = _simulator_step_s(config)
            measured.append(
                Round(
                    machine.cores,
                    learner_pace(learner, recording),
                    collectors_pace(config, recording),
                    {mode: _end_to_end(config, mode, n_workers, step_s) for mode in MODES},
                )
            )
    return TrainBench.of_rounds(machine, config, measured)


@dataclass(frozen=True, slots=True)
class Recording:
    """A training to measure the parts by.

    Attributes:
        first_state: Of the learner, before the first update.
        chunks: The episodes of each update; those of an update were played with its weights.
        weights: From the middle of the training.
    """

    first_state: LearnerState
    chunks: list[list[Chunk]]
    weights: PolicyWeights

    @property
    def n_warm(self) -> int:
        """Updates that come before the clock runs."""
        return _n_warm(len(self.chunks))


def record(config: TrainConfig, learner: RayLearner) -> Recording:
    """Train, and keep the episodes of every update."""
    first_state = learner.state()
    middle = first_state.weights()
    kept: list[list[Chunk]] = []
    with make_collector(config.collect, config.env) as collector:
        for update in range(config.n_updates):
            weights = learner.state().weights()
            middle = weights if update == config.n_updates // 2 else middle
            collector.publish(weights, update)
            collector.submit(_requests(config, update, 1))
            kept.append(list(collector.completed()))
            learner.update([chunk.batch for chunk in kept[-1]]).result()
    return Recording(first_state, kept, middle)


def learner_pace(learner: RayLearner, recording: Recording) -> Pace:
    """Learn from recorded episodes, from the first state on."""
    learner.load_state(recording.first_state)
    pids = learner.pids()
    for chunks in recording.chunks[: recording.n_warm]:
        learner.update([chunk.batch for chunk in chunks]).result()
    measured = recording.chunks[recording.n_warm :]
    busy_s, started = cpu_s(pids), time.perf_counter()
    for chunks in measured:
        learner.update([chunk.batch for chunk in chunks]).result()
    return _pace((chunk.summary for chunks in measured for chunk in chunks), started, cpu_s(pids), busy_s)


def collectors_pace(config: TrainConfig, recording: Recording) -> Pace:
    """Run as many episodes as were recorded, all asked for at once."""
    n_warm = recording.n_warm
    with make_collector(config.collect, config.env) as collector:
        collector.publish(recording.weights, 0)
        collector.submit(_requests(config, 0, n_warm))
        warm = [chunk.summary for chunk in collector.completed()]
        busy_s, started = cpu_s(s.pid for s in warm), time.perf_counter()
        collector.submit(_requests(config, n_warm, config.n_updates - n_warm))
        found = [chunk.summary for chunk in collector.completed()]
        return _pace(found, started, cpu_s(s.pid for s in found), busy_s)


def _end_to_end(config: TrainConfig, mode: str, n_workers: int, step_s: float) -> Training:
    reports: list[UpdateReport] = []
    with tempfile.TemporaryDirectory(prefix="ray-rl-bench-") as folder:
        collect = config.collect.model_copy(update={"max_staleness": MODES[mode]})
        run = config.run.model_copy(update={"run_dir": str(Path(folder) / "run")})
        train(config.model_copy(update={"collect": collect, "run": run}), Console(quiet=True), reports.append)
    if len(reports) < config.n_updates:
        raise KeyboardInterrupt
    measured = reports[_n_warm(len(reports)) :]
    total_s = sum(report.total_s for report in measured)
    n_episodes = config.ppo.episodes_per_update * len(measured)
    return Training(n_episodes / total_s, account(measured, n_workers, step_s))


def _learner(config: TrainConfig) -> RayLearner:
    spec = make_env(config.env).spec
    return RayLearner(assignment_of(spec, config))


def _n_warm(n_updates: int) -> int:
    return max(1, int(n_updates * _WARM_SHARE))


def _requests(config: TrainConfig, first_update: int, n_updates: int) -> list[EpisodeRequest]:
    n = config.ppo.episodes_per_update
    env = config.env
    return episode_requests(
        config.run.seed, first_update * n, n_updates * n, red_agent=env.red_agent, max_steps=env.episode_steps
    )


def cpu_s(pids: Iterable[int]) -> dict[int, float]:
    """CPU time of processes of this machine so far, in seconds, by their numbers."""
    found = {}
    for pid in set(pids):
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        found[pid] = times.user + times.system
    return found


def _pace(
    summaries: Iterable[ChunkSummary], started: float, after_s: dict[int, float], before_s: dict[int, float]
) -> Pace:
    wall_s = time.perf_counter() - started
    n_episodes = sum(len(summary.indices) for summary in summaries)
    busy_s = sum(seconds - before_s.get(pid, 0.0) for pid, seconds in after_s.items())
    return Pace(n_episodes / wall_s, busy_s / n_episodes)


def _simulator_step_s(config: TrainConfig) -> float:
    """Seconds that a step of the simulator takes alone, with a random Blue."""
    seeds = episode_seeds(0, Purpose.BENCH, 0, _SIMULATED)
    arguments = (seeds, 0, RULE_SETS.index(config.env.rules), config.env.episode_steps)
    random_play(seeds[:1], *arguments[1:])
    started = time.process_time()
    random_play(*arguments)
    return (time.process_time() - started) / (_SIMULATED * config.env.episode_steps)
