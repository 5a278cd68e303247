"""Training: publish weights, collect, learn, record. One update after another, in that order on the page.

Words: an *update* is one such cycle, an *epoch* a pass over its batch. The episodes of update k are those with index
k·n … k·n+n-1, so every update consumes exactly its own, each once, whatever finished first. They are asked for as soon
as the learner has finished k - max_staleness updates; their policy is therefore never older than that. Where it may be
older than the last, the learner begins with what is there before its last weights are published.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from rich.console import Console

from ray_rl.checkpoint import (
    NETWORK_PREFIX,
    Checkpoint,
    checkpoints_in,
    find_checkpoint,
    load_checkpoint,
)
from ray_rl.collect.api import Chunk, ChunkSummary, Collector
from ray_rl.collect.factory import make_collector
from ray_rl.config import TrainConfig, UserError
from ray_rl.console import Progress
from ray_rl.envs.api import EnvSpec
from ray_rl.envs.registry import make_env
from ray_rl.episodes import (
    MIXED_RED_AGENT,
    PROTOCOL_STEPS,
    RED_AGENTS,
    EpisodeError,
    EpisodeRequest,
    episode_requests,
)
from ray_rl.failures import RunError
from ray_rl.interruption import Interruption
from ray_rl.ppo.api import (
    RETURN_COUNTER,
    RETURNS_PREFIX,
    EpisodesLostError,
    LearnerHandle,
    LearnerState,
    PendingUpdate,
    UpdateStats,
)
from ray_rl.ppo.factory import make_learner, make_local_learner
from ray_rl.quarantine import Quarantine
from ray_rl.run_folder import CHECKPOINTS, RunFolder, check_run_folder
from ray_rl.seeding import Purpose
from ray_rl.storage import Location, location
from ray_rl.trace_file import TraceFile
from ray_rl.training_metrics import Stopwatch, UpdateReport, evaluation_metrics, update_metrics
from ray_rl.workflow.gate import gate_outcome

CHALLENGE_ENVS = ("cage2", "cyborg")
"""Environments that the challenge's protocol is about."""

_LOSSES = 5
"""Times that an update's episodes may be lost and collected again before the run ends."""

_LOOK_UP_S = 0.01
"""How long the driver listens to the collector before it looks at the learner again, in seconds."""


Observer = Callable[[UpdateReport], None]
"""Told of every update, once it is recorded."""


def train(config: TrainConfig, console: Console | None = None, observe: Observer | None = None) -> Location:
    """Train a defender as configured.

    Args:
        config: The run; with `resume` it goes on exactly where the last checkpoint of its folder stopped.
        console: Where to show the run; default: standard output.
        observe: Told where the time of each update went.

    Returns:
        The run's folder.

    Raises:
        UserError: For input that cannot work, before anything is written.
        EpisodeError: When an environment failed; everything up to the last update is saved by then.
        RunError: When the run cannot go on for another reason: a full disk, a learner that died or diverged.
    """
    with Interruption() as interruption:
        return _train(config, make_learner, interruption, console or _screen(), observe)


def train_silently(config: TrainConfig) -> Location:
    """Train as `train` does, with the learner in this process and nothing on the screen.

    For many trainings one after another: the second finds torch loaded and everything compiled. Signals are left to
    the caller. Arguments, result and errors as there.
    """
    return _train(config, make_local_learner, Interruption(), Console(quiet=True))


def _screen() -> Console:
    return Console(file=sys.stdout, highlight=False)


def _train(
    config: TrainConfig,
    learner_of: Callable[[EnvSpec, TrainConfig], LearnerHandle],
    interruption: Interruption,
    console: Console,
    observe: Observer | None = None,
) -> Location:
    observers = [] if observe is None else [observe]
    check_run_folder(config)
    with contextlib.closing(make_env(config.env)) as env:
        spec = env.spec
    last, first = _last_checkpoint(config, spec), _first_networks(config, spec)
    with contextlib.ExitStack() as parts:
        if config.run.profile is not None:
            observers.append(parts.enter_context(TraceFile(config.run.profile)).add)
        collector = parts.enter_context(make_collector(config.collect, config.env))
        learner = parts.enter_context(learner_of(spec, config))
        folder = parts.enter_context(RunFolder.open(config, lambda line: console.print(line, soft_wrap=True)))
        progress = parts.enter_context(Progress(config, folder.path, console))
        trainer = Trainer(config, spec, folder, collector, learner, progress, interruption, observers)
        if last is not None:
            trainer.restore(last)
        elif first is not None:
            trainer.start_from(first)
        trainer.run()
        return folder.path


def _last_checkpoint(config: TrainConfig, spec: EnvSpec) -> Checkpoint | None:
    """The checkpoint to go on from; None for a new run, or one that was stopped before its first."""
    if not config.run.resume or config.run.run_dir is None:
        return None
    found = checkpoints_in(location(config.run.run_dir) / CHECKPOINTS)
    if not found:
        return None
    checkpoint = load_checkpoint(found[-1])
    if checkpoint.spec != spec:
        raise UserError(
            f"{found[-1]} was trained on '{checkpoint.spec.name}', this run's environment is '{spec.name}': "
            "resume with the same environment, or start a run in a new --run-dir"
        )
    return checkpoint


def _first_networks(config: TrainConfig, spec: EnvSpec) -> Checkpoint | None:
    """The checkpoint whose networks a new run starts from, if any."""
    if config.run.start_from is None:
        return None
    checkpoint = load_checkpoint(find_checkpoint(location(config.run.start_from)))
    if checkpoint.spec != spec or checkpoint.config.policy != config.policy:
        raise UserError(
            f"--start-from {config.run.start_from} was trained on '{checkpoint.spec.name}' with "
            f"{_networks(checkpoint.config)}, this run is for '{spec.name}' with {_networks(config)}"
        )
    return checkpoint


def _networks(config: TrainConfig) -> str:
    return ", ".join(f"{name} {value}" for name, value in config.policy.model_dump(mode="json").items())


class _Lesson(NamedTuple):
    """What the learner learns from, and its answer."""

    chunks: list[Chunk]
    pending: PendingUpdate


class Trainer:
    """The cycle of updates over a collector and a learner.

    Args:
        config: The run.
        spec: What the policy sees.
        folder: Where the run is recorded.
        collector: Runs the episodes.
        learner: Learns from them.
        progress: Shows the run to whoever watches.
        interruption: Tells that the user wants to stop.
        observers: Told where the time of each update went.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: EnvSpec,
        folder: RunFolder,
        collector: Collector,
        learner: LearnerHandle,
        progress: Progress,
        interruption: Interruption,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._config = config
        self._spec = spec
        self._folder = folder
        self._collector = collector
        self._learner = learner
        self._progress = progress
        self._interruption = interruption
        self._observers = observers
        self._update = 0
        self._requested = 0
        self._env_steps = 0
        self._elapsed_before_s = 0.0
        self._started_at = time.monotonic()
        self._state: LearnerState | None = None
        self._lesson: _Lesson | None = None
        self._inbox: dict[int, list[Chunk]] = defaultdict(list)
        self._evaluated: list[ChunkSummary] = []
        self._evaluation_of: int | None = None
        self._compliance: list[float] = []
        self._quarantine = Quarantine(config.run.max_failed_episodes, config.run.seed)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue after a checkpoint as if the run had never stopped.

        Raises:
            UserError: When the checkpoint does not fit the configured networks.
        """
        try:
            self._learner.load_state(LearnerState(checkpoint.arrays, checkpoint.counters))
        except ValueError as error:
            raise UserError(f"the checkpoint of update {checkpoint.update} does not fit: {error}") from error
        self._update = self._requested = checkpoint.update
        self._env_steps = checkpoint.env_steps
        self._elapsed_before_s = checkpoint.elapsed_s
        self._folder.drop_metrics_after(checkpoint.update)
        self._compliance = self._folder.values_of("rollout/compliance")

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Take over the networks of a checkpoint, and the scale of returns that its critic was trained for."""
        fresh = self._learner.state()
        taken = {n: a for n, a in checkpoint.arrays.items() if n.startswith((NETWORK_PREFIX, RETURNS_PREFIX))}
        counters = {RETURN_COUNTER: checkpoint.counters[RETURN_COUNTER]}
        self._learner.load_state(LearnerState({**fresh.arrays, **taken}, {**fresh.counters, **counters}))

    def run(self) -> None:
        """Update until the run is complete or the user stops it; the last state is saved either way."""
        try:
            while self._update < self._config.n_updates and not (self._interruption.requested or self._is_learned()):
                self._one_update()
            if not self._interruption.requested:
                self._evaluate_at_the_end()
        except BaseException as error:
            with contextlib.suppress(Exception):  # the first cause matters more than a save that fails after it
                self._save()
            if isinstance(error, OSError):
                raise RunError(self._folder.trouble(error)) from error
            raise
        try:
            self._save()
        except OSError as error:
            raise RunError(self._folder.trouble(error)) from error
        self._progress.finish(self._update, stopped=self._interruption.requested)

    def _is_learned(self) -> bool:
        """Whether the order of repair is followed well enough, or will not be, for the run to end."""
        gate = self._config.gate
        if gate.until_compliance is None or self._update < gate.gate_after_updates:
            return False
        return gate_outcome(self._compliance, gate.until_compliance, gate.compliance_patience) is not None

    def _one_update(self) -> None:
        watch = Stopwatch()
        with watch("publish"):
            self._publish()
            self._request_episodes()
            self._request_evaluation()
        with watch("collect"):
            if self._lesson is None:
                chunks = self._gather(self._update)
                if chunks is None:
                    return
                self._lesson = self._begin(chunks)
        with watch("learn"):
            chunks, stats = self._learn(self._lesson)
        self._update += 1
        self._env_steps += stats.n_steps
        self._state = self._learner.state()
        self._lesson = self._begin_ahead()
        with watch("record"):
            self._finish_evaluation()
            summaries = [c.summary for c in chunks]
            metrics = update_metrics(summaries, stats, watch)
            if self._quarantine.n_replaced:
                metrics["data/replaced_episodes"] = float(self._quarantine.n_replaced)
            self._compliance += [metrics[name] for name in ("rollout/compliance",) if name in metrics]
            self._record(metrics)
            if self._update % self._config.run.checkpoint_every == 0:
                with watch("checkpoint"):
                    self._save()
        for observe in self._observers:
            observe(UpdateReport(watch.total_s, watch.taken() + stats.spans, tuple(summaries)))

    def _publish(self) -> None:
        """Hand the policy after the last update to the collector."""
        if self._state is None:
            self._state = self._learner.state()
        self._collector.publish(self._state.weights(), self._update)

    def _request_episodes(self) -> None:
        """Ask for the episodes of every update that may start with the weights just published."""
        n = self._config.ppo.episodes_per_update
        last = min(self._update + self._config.collect.max_staleness, self._config.n_updates - 1)
        for update in range(max(self._requested, self._update), last + 1):
            self._collector.submit(self._requests(update * n, n, Purpose.TRAIN))
            self._requested = update + 1

    def _gather(self, update: int) -> list[Chunk] | None:
        """Wait for all episodes of an update; None when the user stops the run meanwhile."""
        while not self._is_complete(update):
            if self._interruption.requested:
                return None
            self._listen(timeout_s=0.5, until_update=update)
        return self._inbox.pop(update)

    def _is_complete(self, update: int) -> bool:
        """Whether all episodes of an update are there."""
        return sum(len(c.summary.indices) for c in self._inbox[update]) >= self._config.ppo.episodes_per_update

    def _begin(self, chunks: list[Chunk]) -> _Lesson:
        return _Lesson(chunks, self._learner.update([chunk.batch for chunk in chunks]))

    def _begin_ahead(self) -> _Lesson | None:
        """Let the learner go on at once where the episodes of the next update are there, older than the last weights.

        These are published while it learns.
        """
        if self._config.collect.max_staleness and self._is_complete(self._update):
            return self._begin(self._inbox.pop(self._update))
        return None

    def _learn(self, lesson: _Lesson) -> tuple[list[Chunk], UpdateStats]:
        """Wait for an update; episodes that were lost since they were collected are collected again.

        Returns:
            The episodes learned from, and what there is to say.

        Raises:
            RunError: When the learner did not consume exactly the episodes of this update, each once.
        """
        for losses in range(_LOSSES + 1):
            try:
                stats = self._outcome(lesson.pending)
                break
            except EpisodesLostError as lost:
                if losses == _LOSSES:
                    raise
                lesson = self._begin(self._collect_again(lesson.chunks, lost))
        n = self._config.ppo.episodes_per_update
        first, last = self._update * n, (self._update + 1) * n - 1
        if (stats.n_episodes, stats.first_episode, stats.last_episode) != (n, first, last):
            raise RunError(
                f"update {self._update + 1} learned from {stats.n_episodes} episodes, {stats.first_episode} to "
                f"{stats.last_episode}, in place of {first} to {last}"
            )
        return lesson.chunks, stats

    def _outcome(self, pending: PendingUpdate) -> UpdateStats:
        """Wait for an update; meanwhile the collector goes on with whatever it was asked for.

        Raises:
            RunError: When it takes longer than the watchdog allows.
        """
        limit_s = self._config.collect.watchdog_s
        give_up_at = time.monotonic() + limit_s
        while not pending.done() and self._awaits_episodes():
            self._listen(timeout_s=_LOOK_UP_S)
            if time.monotonic() > give_up_at:
                break
        try:
            return pending.result(max(0.0, give_up_at - time.monotonic()))
        except TimeoutError as error:
            raise RunError(
                f"update {self._update + 1} is not learned after {limit_s:g} s: the learner hangs, or --watchdog-s is "
                "too short for it. Go on from the last checkpoint with --resume"
            ) from error

    def _awaits_episodes(self) -> bool:
        """Whether the collector still has something to do."""
        if self._evaluation_of is not None and not self._is_evaluated():
            return True
        return not all(self._is_complete(update) for update in range(self._update + 1, self._requested))

    def _collect_again(self, chunks: list[Chunk], lost: EpisodesLostError) -> list[Chunk]:
        """Run the episodes of lost chunks once more; with max_staleness 0 the same weights give the same bits."""
        gone = {int(index) for position in lost.positions for index in chunks[position].summary.indices}
        self._progress.say(f"{lost}; {len(gone)} episodes of update {self._update + 1} run again")
        n = self._config.ppo.episodes_per_update
        requests = self._requests(self._update * n, n, Purpose.TRAIN)
        self._inbox[self._update] = [c for k, c in enumerate(chunks) if k not in lost.positions]
        self._collector.submit([request for request in requests if request.index in gone])
        again = self._gather(self._update)
        if again is None:
            raise lost
        return again

    def _listen(self, timeout_s: float, until_update: int | None = None) -> None:
        """Take in what the collector finishes within a time, or until an update's episodes are all there."""
        try:
            self._take_in(timeout_s, until_update)
        except EpisodeError as error:
            requests, remark = self._quarantine.instead(error)
            self._progress.say(remark)
            for request in requests:  # each in a chunk of its own: a bad one takes no other along
                self._collector.submit([request])

    def _take_in(self, timeout_s: float, until_update: int | None) -> None:
        n = self._config.ppo.episodes_per_update
        heard = False
        for chunk in self._collector.completed(timeout_s):
            heard = True
            if chunk.summary.purpose is Purpose.TRAIN:
                update = int(chunk.summary.indices[0]) // n
                self._inbox[update].append(chunk)
                if update == until_update and self._is_complete(update):
                    return
            else:
                self._evaluated.append(chunk.summary)
        if not heard and until_update is None:
            time.sleep(timeout_s / 4)

    def _request_evaluation(self) -> None:
        every = self._config.evaluate.evaluate_every
        if every and self._update % every == 0 and self._update > 0:
            self._submit_evaluation()

    def _submit_evaluation(self) -> None:
        """Ask for the evaluation's episodes; of a mixture of red agents each plays the same number."""
        n, mixed = self._config.evaluate.evaluate_episodes, self._config.env.red_agent == MIXED_RED_AGENT
        agents = RED_AGENTS if mixed else (self._config.env.red_agent,)
        bounds = [n * k // len(agents) for k in range(len(agents) + 1)]
        requests: list[EpisodeRequest] = []
        for agent, (first, end) in zip(agents, pairwise(bounds), strict=True):
            requests += self._requests(first, end - first, Purpose.VALIDATE, agent)
        self._collector.submit(requests)
        self._evaluation_of = self._update

    def _finish_evaluation(self) -> None:
        """Wait for the rest of an evaluation that was asked for: the next weights must not act in it."""
        if self._evaluation_of is None:
            return
        while not self._is_evaluated():
            self._listen(timeout_s=0.5)
        env = self._config.env
        protocol = env.env in CHALLENGE_ENVS and env.episode_steps == PROTOCOL_STEPS[-1]
        self._record(evaluation_metrics(self._evaluated, protocol), at_update=self._evaluation_of)
        self._evaluated = []
        self._evaluation_of = None

    def _is_evaluated(self) -> bool:
        return sum(len(s.indices) for s in self._evaluated) >= self._config.evaluate.evaluate_episodes

    def _evaluate_at_the_end(self) -> None:
        if self._config.evaluate.evaluate_every:
            self._publish()
            self._submit_evaluation()
            self._finish_evaluation()

    def _requests(self, first: int, count: int, purpose: Purpose, red_agent: str | None = None) -> list[EpisodeRequest]:
        env = self._config.env
        return episode_requests(
            self._config.run.seed,
            first,
            count,
            red_agent=red_agent or env.red_agent,
            max_steps=env.episode_steps,
            purpose=purpose,
            greedy=purpose is not Purpose.TRAIN and not self._config.evaluate.evaluate_sampled,
            order=env.order,
        )

    def _record(self, metrics: dict[str, float], at_update: int | None = None) -> None:
        update = self._update if at_update is None else at_update
        episodes = update * self._config.ppo.episodes_per_update
        self._folder.record(update, episodes, self._env_steps, self._elapsed_s, metrics)
        self._progress.show(update, self._elapsed_s, metrics)

    def _save(self) -> None:
        state = self._state
        if state is None or state.version != self._update:
            return  # stopped before the first update, or just as one was taken over: the last checkpoint stands
        self._folder.save(
            Checkpoint(
                self._update,
                self._env_steps,
                self._elapsed_s,
                self._config,
                self._spec,
                state.arrays,
                state.counters,
            ),
            self._config.run.keep_checkpoints,
        )

    @property
    def _elapsed_s(self) -> float:
        return self._elapsed_before_s + time.monotonic() - self._started_at
