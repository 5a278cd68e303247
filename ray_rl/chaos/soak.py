"""The soak: a very long training, killed and resumed again and again, in which nothing may grow.

A *life* is a process from when it has started to the last look at it. What it holds after the first tenth of its life
is compared with what it holds in the last tenth: caches are full by then, and what still grows would go on growing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ray_rl.chaos.drill import wrong_updates
from ray_rl.chaos.plan import Event, FaultName
from ray_rl.chaos.training import Training
from ray_rl.config import TrainConfig

LOOK_S = 1.0
"""How often to look at the processes, in seconds."""
_STARTING_LOOKS = 20
"""At the start of a process, left out: its first work loads libraries and opens connections to all others, which takes
a dozen seconds however long it lives, and more than a tenth of a short life."""
_FEWEST_LOOKS = 40
"""A shorter life says nothing."""
_SHOWN_LOOKS = 100
"""Of a process, in a report."""
_MORE_BYTES, _MORE_SHARE = 8 * 2**20, 0.05
"""What memory may differ by, whichever is more: allocators give back late."""
_MORE_DESCRIPTORS = 4
"""What descriptors may differ by: connections come and go."""
_MORE_FILES = 2
"""What files may differ by, besides one of TensorBoard's for each start: a checkpoint is being written."""


@dataclass(frozen=True, slots=True)
class Look:
    """A process at a moment.

    Attributes:
        role: What it does: driver, learner, worker, ….
        pid: Its number.
        own_bytes: Memory that it shares with nobody.
        descriptors: Open files and connections.
        opened: What they point to, where somebody looked closer.
    """

    role: str
    pid: int
    own_bytes: int
    descriptors: int
    opened: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Life:
    """What a process held all along.

    Attributes:
        role: What it did.
        pid: Its number.
        first_s: When it was first looked at, in seconds of the soak.
        last_s: When last.
        own_bytes: At most `_SHOWN_LOOKS` values, evenly spaced in between.
        descriptors: Likewise.
        opened_first: What its descriptors pointed to at the first look.
        opened_last: And at the last.
    """

    role: str
    pid: int
    first_s: float
    last_s: float
    own_bytes: list[int]
    descriptors: list[int]
    opened_first: tuple[str, ...]
    opened_last: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """What something held, and whether it grew.

    Attributes:
        what: Role of a process, or another thing.
        lives: Processes of the role that lived long enough to tell.
        unit: Of both values.
        early: After the first tenth, of the life that grew most.
        late: In the last tenth of it.
        allowed: What it may differ by.
    """

    what: str
    lives: int
    unit: str
    early: float
    late: float
    allowed: float

    @property
    def grew(self) -> bool:
        """Whether it holds more than it may."""
        return self.late - self.early > self.allowed


@dataclass
class Soak:
    """What came of it.

    Attributes:
        n_updates: Updates of the training.
        episodes_per_update: Episodes that each consumes.
        seconds: How long it took, restarts included.
        faults: What happened, in order: the fault, whom it hit, after which update.
        growths: What was watched.
        lives: What the processes held all along.
        wrong_updates: Updates recorded never, twice, or with other episodes than their own.
    """

    n_updates: int
    episodes_per_update: int
    seconds: float = 0.0
    faults: list[tuple[FaultName, str, int]] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    wrong_updates: list[int] = field(default_factory=list)

    @property
    def grown(self) -> list[str]:
        """What grew."""
        return [f"{growth.what}: {growth.unit}" for growth in self.growths if growth.grew]

    @property
    def holds(self) -> bool:
        """Whether nothing grew, was lost or counted twice."""
        return not (self.wrong_updates or self.grown)


class Watch:
    """Looks at processes, the object store and the run's files now and then, and says in the end what grew.

    Args:
        look: Looks at all processes, given the driver's number.
        stored_bytes: Tells what the object stores hold.
        run_dir: Folder of the run.
    """

    def __init__(self, look: Callable[[int], Sequence[Look]], stored_bytes: Callable[[], int], run_dir: Path) -> None:
        self._look, self._stored_bytes, self._run_dir = look, stored_bytes, run_dir
        self._lives: dict[tuple[str, int], list[Look]] = {}
        self._times: dict[tuple[str, int], list[float]] = {}
        self._stored: list[float] = []
        self._files: list[float] = []
        self._looked_at = 0.0
        self._began_at = time.monotonic()

    def __call__(self, driver: int) -> None:
        """Look, unless it is too early for it."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        for look in self._look(driver):
            self._lives.setdefault((look.role, look.pid), []).append(look)
            self._times.setdefault((look.role, look.pid), []).append(now - self._began_at)
        self._stored.append(self._stored_bytes())
        self._files.append(sum(1 for path in self._run_dir.rglob("*") if path.is_file()))

    def growths(self, n_restarts: int) -> list[Growth]:
        """What grew and what did not; roles in alphabetical order."""
        found = []
        for role in sorted({role for role, _ in self._lives}):
            lives = [looks[_STARTING_LOOKS:] for (its_role, _), looks in self._lives.items() if its_role == role]
            lives = [looks for looks in lives if len(looks) >= _FEWEST_LOOKS]
            if not lives:
                continue
            memory = [early_and_late([look.own_bytes for look in looks]) for looks in lives]
            early, late = max(memory, key=lambda pair: pair[1] - pair[0])
            found.append(Growth(role, len(lives), "bytes", early, late, max(_MORE_BYTES, _MORE_SHARE * early)))
            descriptors = [early_and_late([look.descriptors for look in looks]) for looks in lives]
            early, late = max(descriptors, key=lambda pair: pair[1] - pair[0])
            found.append(Growth(role, len(lives), "descriptors", early, late, _MORE_DESCRIPTORS))
        for what, values, unit, allowed in (
            ("object stores", self._stored, "bytes", float(_MORE_BYTES)),
            ("run folder", self._files, "files", float(_MORE_FILES + n_restarts)),
        ):
            if len(values) >= _FEWEST_LOOKS:
                found.append(Growth(what, 1, unit, *early_and_late(values), allowed))
        return found

    def lives(self) -> list[Life]:
        """All processes, in the order in which they appeared."""
        found = []
        for (role, pid), looks in self._lives.items():
            shown = looks[:: -(-len(looks) // _SHOWN_LOOKS)]
            times = self._times[role, pid]
            memory, descriptors = [look.own_bytes for look in shown], [look.descriptors for look in shown]
            found.append(Life(role, pid, times[0], times[-1], memory, descriptors, looks[0].opened, looks[-1].opened))
        return found


def early_and_late(values: Sequence[float]) -> tuple[float, float]:
    """Medians of the second tenth and of the last: what there was after the first tenth, and in the end."""
    tenth = max(1, len(values) // 10)
    return statistics.median(values[tenth : 2 * tenth]), statistics.median(values[-tenth:])


def run_soak(
    config: TrainConfig,
    plan: Sequence[Event],
    run_dir: Path,
    address: str,
    cause: Callable[[FaultName], str],
    watch: Watch,
    say: Callable[[str], None],
) -> Soak:
    """Train, with faults, and watch.

    Args:
        config: The training; where it runs is decided here.
        plan: What happens to it.
        run_dir: Folder of the run.
        address: Of the cluster.
        cause: Causes a fault on the cluster, and says whom it hit; a killed driver is this function's own affair.
        watch: Looks at everything meanwhile.
        say: Takes a line about what is going on.

    Raises:
        RunError: When the training ends or stands still, which it should not.
    """
    soak = Soak(config.n_updates, config.ppo.episodes_per_update)
    started = time.monotonic()
    with Training(config, run_dir, ["--collector", "ray-tasks", "--address", address], watch) as training:
        for event in plan:
            training.wait_for_update(event.after_update)
            whom = training.kill_and_resume() if event.fault == "driver" else cause(event.fault)
            say(f"after update {event.after_update}: {event.fault}, {whom}")
            soak.faults.append((event.fault, whom, event.after_update))
        training.wait()
        soak.wrong_updates = wrong_updates(training.rows(), config.n_updates, config.ppo.episodes_per_update)
    soak.seconds = time.monotonic() - started
    soak.growths = watch.growths(sum(fault == "driver" for fault, _, _ in soak.faults))
    soak.lives = watch.lives()
    return soak
