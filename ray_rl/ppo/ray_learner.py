"""A learner in a Ray actor: episodes reach it from the workers by reference, not through the driver.

Every update returns the learner's new state beside its statistics, and the driver keeps the latest. When the actor
dies, another one takes over from there and does the update under way again: the same bits, and nobody else notices.
Torch is imported in the actor's process only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from ray_rl.config import PpoConfig, UserError
from ray_rl.episodes import EpisodeBatch
from ray_rl.ppo.api import (
    Assignment,
    EpisodesLostError,
    LearnerDiedError,
    LearnerSilentError,
    LearnerState,
    UpdateStats,
)
from ray_rl.ray_runtime import this_node
from ray_rl.ray_start import START_S
from ray_rl.spans import Spans

if TYPE_CHECKING:
    from ray_rl.ppo.learner import Learner
    from ray_rl.ppo.ray_team import LearnerTeam

_DEATHS = 2
"""Deaths of the actor in a row, without an update finished between them, that are made good."""
_FETCH_S = 20.0
"""How long episodes may take to arrive, in seconds, before they count as lost."""


class _LearnerProcess:
    """What runs in the actor: a `Learner`, or the first of a team, that resolves references.

    Args:
        assignment: What to learn, and how.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._made: Learner | LearnerTeam | UserError
        try:
            self._made = _make(assignment)
        except UserError as error:
            self._made = error  # told to whoever asks: of an actor that does not start, Ray tells a traceback

    @property
    def _learner(self) -> Learner | LearnerTeam:
        if isinstance(self._made, UserError):
            raise self._made
        return self._made

    def pid(self) -> int:
        """Number of the actor's process."""
        return os.getpid()

    def pids(self) -> list[int]:
        """Numbers of the processes of all learners, the actor's first."""
        from ray_rl.ppo.learner import Learner

        return [os.getpid()] if isinstance(self._learner, Learner) else self._learner.pids()

    def update(self, batches: Sequence[EpisodeBatch | ray.ObjectRef[EpisodeBatch]]) -> tuple[UpdateStats, LearnerState]:
        """Fetch all batches that came as references, at once, and learn; the state is that after the update."""
        spans = Spans("learner")
        with spans("fetch"):
            fetched = fetch_batches(batches)
        stats = self._learner.update(fetched)
        return replace(stats, spans=spans.taken() + stats.spans), self._learner.state()

    def state(self) -> LearnerState:
        """As `Learner.state`."""
        return self._learner.state()

    def load_state(self, state: LearnerState) -> None:
        """As `Learner.load_state`."""
        self._learner.load_state(state)


def _make(assignment: Assignment) -> Learner | LearnerTeam:
    if assignment.ppo.n_learners == 1:
        from ray_rl.ppo.learner import Learner

        return Learner(assignment)
    from ray_rl.ppo.ray_team import LearnerTeam

    return LearnerTeam(assignment)


class RayPendingUpdate:
    """An update under way in the actor; done again when the actor dies.

    Args:
        learner: Whose update it is.
        batches: What it learns from.
    """

    def __init__(self, learner: RayLearner, batches: Sequence[EpisodeBatch | Any]) -> None:
        self._learner = learner
        self._batches = list(batches)
        self._send()
        self._outcome: UpdateStats | BaseException | None = None

    def _send(self) -> None:
        self._reference, self._sent_at = self._learner.send("update", self._batches), time.monotonic()

    @property
    def age_s(self) -> float:
        """Time since the learner was last asked for it, in seconds."""
        return time.monotonic() - self._sent_at

    def done(self) -> bool:
        """Whether `result` returns, or raises, at once."""
        if self._outcome is None and ray.wait([self._reference], timeout=0)[0]:
            self._take_in(None)
        return self._outcome is not None

    def result(self, timeout: float | None = None) -> UpdateStats:
        """Wait for the update; raises what the update raised, or TimeoutError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._outcome is None:
            self._take_in(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def _take_in(self, timeout_s: float | None) -> None:
        """Keep the outcome; when the actor died, or another learner of its team, ask the next one."""
        try:
            stats, state = _get(self._reference, timeout_s)
        except TimeoutError:
            raise
        except (RayActorError, LearnerDiedError) as error:
            try:
                self._learner.replace(error)
            except LearnerDiedError as last:
                self._outcome = last
            else:
                self._send()
        except BaseException as error:
            self._outcome = error
        else:
            self._learner.keep(state)
            self._outcome = stats


class RayLearner:
    """Keeps the promises of `ray_rl.ppo.api.LearnerHandle` by an actor; Ray is connected already.

    The actor is on the driver's node, which is the last to be taken away; one that learns on a GPU, where there is one.

    Args:
        assignment: What to learn, and how; of several learners the actor is the first.
        num_cpus: CPUs that Ray sets aside for it. With 0 it shares with the workers, which mostly wait while it works.
        limit_s: Longest time that it may take for an answer, or an update that is waited for, in seconds; while it
            starts `START_S` if that is longer.

    Raises:
        UserError: When Ray has no GPU for each learner that is to have one.
    """

    def __init__(self, assignment: Assignment, num_cpus: float = 0, limit_s: float = 300.0) -> None:
        _check_gpus(assignment.ppo)
        self._assignment = assignment
        self._num_cpus = num_cpus
        self._limit_s = limit_s
        self._pending: RayPendingUpdate | None = None
        self._state: LearnerState | None = None
        self._n_deaths = 0
        self._actor: Any = self._start()

    def _start(self) -> Any:
        actor_class: Any = ray.remote(_LearnerProcess)
        options = actor_class.options(
            num_cpus=self._num_cpus,
            num_gpus=self._assignment.ppo.gpus_per_learner,
            max_restarts=0,
            scheduling_strategy="DEFAULT" if self._assignment.ppo.gpus_per_learner else this_node(),
        )
        self._started_at = time.monotonic()
        return options.remote(self._assignment)

    def update(self, batches: Sequence[EpisodeBatch | Any]) -> RayPendingUpdate:
        """Start to learn from episodes or references to them, in any order; returns at once."""
        self._settle()
        self._pending = RayPendingUpdate(self, batches)
        return self._pending

    def state(self) -> LearnerState:
        """Everything needed to go on bit for bit; waits for the update under way.

        One that does not end in time counts as failed: the state is that before it.
        """
        try:
            self._settle()
        except LearnerSilentError:
            if self._state is None:
                raise
        return self._state if self._state is not None else self._ask("state")

    def load_state(self, state: LearnerState) -> None:
        """Go on from a saved state; ValueError names the first thing that does not fit."""
        self._ask("load_state", state)
        self._state = state

    def pid(self) -> int:
        """Number of the actor's process on its node."""
        pid: int = self._ask("pid")
        return pid

    def pids(self) -> list[int]:
        """Numbers of the processes of all learners on their nodes, the actor's first."""
        pids: list[int] = self._ask("pids")
        return pids

    def send(self, method: str, *arguments: Any) -> Any:
        """Call the actor; returns a reference to its answer at once."""
        return getattr(self._actor, method).remote(*arguments)

    def keep(self, state: LearnerState) -> None:
        """Remember the state after an update: from there another actor would go on."""
        self._state = state
        self._n_deaths = 0

    def replace(self, death: RayActorError | LearnerDiedError) -> None:
        """Let another actor, with a team if there was one, take over from the state after the last finished update.

        Raises:
            LearnerDiedError: When they died too often.
        """
        self._n_deaths += 1
        if self._n_deaths > _DEATHS:
            raise LearnerDiedError(
                f"the learner's process died {self._n_deaths} times in the same update (for want of memory?): "
                f"{str(death).splitlines()[0].rstrip('.')}. Go on from the last checkpoint with --resume"
            ) from death
        ray.kill(self._actor)  # one that is only out of reach must not go on
        self._actor = self._start()
        if self._state is not None:
            self.send("load_state", self._state)

    def _settle(self) -> None:
        """Wait for the update under way, however it ends.

        Raises:
            LearnerSilentError: When it does not end in time.
        """
        if self._pending is not None:
            with contextlib.suppress(Exception):  # it is told to whoever asks for its result
                self._pending.result(max(0.0, self._limit_s - self._pending.age_s))
            if not self._pending.done():
                raise LearnerSilentError(self._limit_s)
            self._pending = None

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call the actor and wait for the answer; when it dies, ask the next one.

        Raises:
            LearnerSilentError: When no answer comes in time.
        """
        self._settle()
        while True:
            limit_s = max(self._limit_s, self._started_at + START_S - time.monotonic())
            try:
                return _get(self.send(method, *arguments), limit_s)
            except TimeoutError as error:
                raise LearnerSilentError(limit_s) from error
            except RayActorError as error:
                self.replace(error)

    def close(self) -> None:
        """End the actor; safe to call twice."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def __enter__(self) -> Self:
        """Return the learner itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _check_gpus(ppo: PpoConfig) -> None:
    """Refuse to wait for GPUs that never come."""
    wanted = ppo.n_learners * ppo.gpus_per_learner
    found = int(cast("Any", ray).cluster_resources().get("GPU", 0))
    if wanted > found:
        raise UserError(
            f"--learner-device {ppo.learner_device} --n-learners {ppo.n_learners} takes a GPU for each learner, and "
            f"this Ray has {found}: have nodes with GPUs start first, or learn with --learner-device cpu"
        )


def fetch_batches(
    batches: Sequence[EpisodeBatch | ray.ObjectRef[EpisodeBatch]], timeout_s: float = _FETCH_S
) -> list[EpisodeBatch]:
    """The batches, those that came as references fetched at once.

    Args:
        batches: Episodes, or references to them.
        timeout_s: How long they may take to arrive, in seconds.

    Raises:
        EpisodesLostError: When some did not arrive; names their positions.
    """
    references = [batch for batch in batches if isinstance(batch, ray.ObjectRef)]
    arrived = set(ray.wait(references, num_returns=len(references), timeout=timeout_s)[0]) if references else set()
    lost: list[int] = []
    cause = f"they did not arrive within {timeout_s:g} s"
    fetched: list[EpisodeBatch] = []
    for position, batch in enumerate(batches):
        if not isinstance(batch, ray.ObjectRef):
            fetched.append(batch)
        elif batch in arrived:
            try:
                fetched.append(ray.get(batch, timeout=timeout_s))
            except RayError as error:
                cause = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                lost.append(position)
        else:
            lost.append(position)
    if lost:
        raise EpisodesLostError(lost, cause)
    return fetched


def _get(reference: Any, timeout_s: float | None = None) -> Any:
    """The value of a reference; what went wrong in the actor is raised as it was raised there."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except GetTimeoutError as error:
        raise TimeoutError(f"the learner did not finish within {timeout_s} s") from error
    except RayTaskError as error:
        raise _first_cause(error) from error


def _first_cause(error: RayTaskError) -> BaseException:
    cause: BaseException = error
    while isinstance(cause, RayTaskError) and isinstance(cause.cause, BaseException):
        cause = cause.cause
    return cause
