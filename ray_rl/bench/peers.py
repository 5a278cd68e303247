"""``ray-rl bench peers``: training, in episodes per second of wall-clock time, beside the PPO of other libraries.

All train the same networks on the same simulator, with as many passes over as many steps. Each contestant first tries
its settings (how many environments, processes and threads); the best of them then runs in interleaved rounds. Every run
has a process of its own, starts up and warms up before the clock runs, and is alone on the machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from ray_rl.bench.machine import Machine, this_machine
from ray_rl.bench.rounds import Spread

OWN = "ray_rl"
"""What the others are compared with: this package, strict."""
OVERLAPPED = f"{OWN}, overlapped"
"""The same, collecting while it learns."""
_TRIED = 4
"""Updates by which a setting is tried, the first of them not counted."""

Setting = Mapping[str, int | str]
"""What a contestant is given, by the names of its arguments."""


@dataclass(frozen=True, slots=True)
class Task:
    """What every contestant trains. Whatever is not named here (step size, discount and so on) costs no time.

    Attributes:
        hidden_size: Units of both hidden layers of actor and critic, which share nothing.
        episodes_per_update: Episodes of a batch.
        episode_steps: Steps of an episode.
        epochs: Passes over a batch.
        minibatches: Minibatches of a pass.
        n_updates: Updates, of which `n_warm` come before the clock runs.
        n_warm: 1 or more.
    """

    hidden_size: int
    episodes_per_update: int
    episode_steps: int
    epochs: int
    minibatches: int
    n_updates: int
    n_warm: int

    @property
    def steps_per_update(self) -> int:
        """Steps of a batch."""
        return self.episodes_per_update * self.episode_steps

    @property
    def n_measured(self) -> int:
        """Updates while the clock runs."""
        return self.n_updates - self.n_warm

    @property
    def game(self) -> dict[str, Any]:
        """Arguments of ``gymnasium.make_vec("ray_rl/CAGE2-v0")``."""
        return {
            "view": "winner",
            "actions": "compact",
            "red_agent": "B_lineAgent",
            "episode_steps": self.episode_steps,
        }

    def episodes_per_s(self, measured_s: float) -> float:
        """The figure, from the seconds that the measured updates took."""
        return self.n_measured * self.episodes_per_update / measured_s


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody's PPO.

    Attributes:
        name: For tables.
        module: Has ``train(task, **setting)``, which returns episodes per second; imports what it needs itself.
        settings: What it may choose from.
    """

    name: str
    module: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """How a contestant did.

    Attributes:
        name: Of the contestant.
        setting: The one that was best when tried.
        tried: Every setting with its episodes per second.
        episodes_per_s: Of the best setting, once a round.
    """

    name: str
    setting: Setting
    tried: tuple[tuple[Setting, float], ...]
    episodes_per_s: Spread


@dataclass(frozen=True, slots=True)
class PeersBench:
    """Result of the benchmark.

    Attributes:
        machine: Where it was measured.
        task: What was trained.
        results: Of those that ran; `OWN` first.
        not_installed: Names of the others, and what is missing.
    """

    machine: Machine
    task: Task
    results: tuple[Result, ...]
    not_installed: tuple[tuple[str, str], ...]

    def times_as_fast(self, result: Result, own: str) -> Spread:
        """How many times as fast as another one of the contestants is, round by round.

        Args:
            result: Of the other.
            own: Name of the contestant, as a rule one of this package's.
        """
        ours = next(one for one in self.results if one.name == own)
        return ours.episodes_per_s.over(result.episodes_per_s)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "bench": "peers",
            "machine": self.machine.to_json(),
            "task": asdict(self.task),
            "results": [
                {
                    "name": result.name,
                    "setting": dict(result.setting),
                    "tried": [{"setting": dict(s), "episodes_per_s": figure} for s, figure in result.tried],
                    "episodes_per_s": result.episodes_per_s.to_json(),
                    "times_as_fast": {
                        own.name: self.times_as_fast(result, own.name).to_json()
                        for own in self.results
                        if own.name in (OWN, OVERLAPPED)
                    },
                }
                for result in self.results
            ],
            "not_installed": dict(self.not_installed),
        }


def contestants(cores: int, episodes_per_update: int) -> tuple[Contestant, ...]:
    """Everybody, with the settings that are sensible on so many cores.

    Args:
        cores: CPUs at hand.
        episodes_per_update: Environments, at most: one for each episode of a batch.
    """
    learners = sorted({(1, 2), (max(cores // 2, 1), 2), (cores, 1)})
    own: list[Setting] = [{"collector": "executor", "n_learners": 1, "learner_threads": 2}]
    own += [{"collector": "ray-tasks", "n_learners": n, "learner_threads": threads} for n, threads in learners]
    batched = tuple(
        {"n_envs": n_envs, "n_threads": n_threads}
        for n_envs in sorted({episodes_per_update, max(episodes_per_update // 4, 1)})
        for n_threads in sorted({1, cores})
    )
    rllib = tuple(
        {"n_processes": n_processes, "n_envs": max(episodes_per_update // max(n_processes, 1), 1), "n_threads": cores}
        for n_processes in sorted({0, cores})
    )
    return (
        Contestant(OWN, "ray_rl.bench.peer_own", tuple({"max_staleness": 0, **setting} for setting in own)),
        Contestant(OVERLAPPED, "ray_rl.bench.peer_own", tuple({"max_staleness": 1, **setting} for setting in own)),
        Contestant("Stable-Baselines3", "ray_rl.bench.peer_sb3", batched),
        Contestant("CleanRL-style", "ray_rl.bench.peer_cleanrl", batched),
        Contestant("RLlib", "ray_rl.bench.ray_peer_rllib", rllib),
    )


def bench_peers(
    task: Task, everybody: Sequence[Contestant], rounds: int, say: Callable[[str], None] = print
) -> PeersBench:
    """Let all try their settings, then measure the best of each in interleaved rounds.

    Args:
        task: What to train.
        everybody: Contestants; the first is what the others are compared with.
        rounds: Times that everybody is measured.
        say: Told of every step.
    """
    machine = this_machine()
    ready: list[tuple[Contestant, tuple[tuple[Setting, float], ...], Setting]] = []
    missing = []
    for contestant in everybody:
        say(f"{contestant.name} tries {len(contestant.settings)} settings")
        try:
            tried = _try(contestant, task)
        except ImportError as error:
            missing.append((contestant.name, str(error)))
        else:
            ready.append((contestant, tried, max(tried, key=lambda pair: pair[1])[0]))
    figures: list[list[float]] = [[] for _ in ready]
    for number in range(1, rounds + 1):
        for found, (contestant, _, best) in zip(figures, ready, strict=True):
            say(f"round {number} of {rounds}: {contestant.name}")
            found.append(in_own_process(contestant.module, task, best))
    results = (
        Result(contestant.name, best, tried, Spread(tuple(found)))
        for found, (contestant, tried, best) in zip(figures, ready, strict=True)
    )
    return PeersBench(machine, task, tuple(results), tuple(missing))


def _try(contestant: Contestant, task: Task) -> tuple[tuple[Setting, float], ...]:
    short = replace(task, n_updates=min(_TRIED, task.n_updates), n_warm=1)
    return tuple((setting, in_own_process(contestant.module, short, setting)) for setting in contestant.settings)


def in_own_process(module: str, task: Task, setting: Setting) -> float:
    """Train in a process that starts for it and ends with it; raises what the training raises."""
    with ProcessPoolExecutor(1, get_context("spawn"), _hush) as process:
        return process.submit(_train, module, task, dict(setting)).result()


def _train(module: str, task: Task, setting: dict[str, int | str]) -> float:
    figure: float = import_module(module).train(task, **setting)
    return figure


def _hush() -> None:
    """Send what a contestant prints nowhere; errors come home as exceptions."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
