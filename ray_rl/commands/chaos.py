"""``ray-rl chaos``: a training that is disturbed must end with the same bits; one that is very long must not grow."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ray_rl.bench.machine import this_machine
from ray_rl.chaos.drill import Drill, run_drill
from ray_rl.chaos.plan import FAULTS, MEANING, FaultName, make_plan
from ray_rl.chaos.soak import Soak
from ray_rl.commands.chaos_soak import hold_soak, tell_soak
from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import TrainConfig, UserError

_DESCRIPTION = (
    "Train twice: in one process and undisturbed, and on a cluster while processes and nodes are killed or stopped at "
    "moments that the seed decides. Says what each fault cost, and proves that every update consumed exactly its "
    "episodes and that the weights end bit-identical. Without --address the cluster is several nodes on this machine. "
    "With it, nodes of that cluster really die. With --soak one long training is killed and resumed, and watched: says "
    "whether memory, object stores, files or descriptors grew."
)


_SOAK_FAULTS: tuple[FaultName, ...] = ("worker", "driver")
_SOAK_TIMES = 3


@dataclass(frozen=True)
class ChaosFlags:
    """Flags of ``ray-rl chaos``."""

    address: str | None = None
    """Address of a cluster to hold the drill on; none: several nodes on this machine."""
    nodes: int = 3
    """Nodes of the cluster on this machine, of one CPU each, besides its head."""
    faults: tuple[FaultName, ...] | None = None
    """What happens; none: everything, in a soak worker and driver."""
    times: int | None = None
    """How often each of them happens; none: once, in a soak three times. 0: a soak that nothing disturbs."""
    soak: int | None = None
    """Episodes of a soak, in place of the drill and its updates; none: the drill."""
    env: str = "cage2"
    """cage2, latency, or any gymnasium id."""
    updates: int = 60
    """Updates of the training."""
    episodes_per_update: int = 400
    """Episodes of each."""
    episode_steps: int = 100
    """Steps of an episode."""
    seed: int = 0
    """Decides the training, and what happens when."""
    run_dir: Path | None = None
    """Folder for both runs; none: a temporary one."""
    json: Path | None = None
    """File for what the table shows, as JSON."""


def run(words: list[str]) -> int:
    """Hold the drill; returns 1 when its proof fails."""
    flags = parse(ChaosFlags, "chaos", _DESCRIPTION, words)
    times = (1 if flags.soak is None else _SOAK_TIMES) if flags.times is None else flags.times
    faults = (FAULTS if flags.soak is None else _SOAK_FAULTS) if flags.faults is None else flags.faults
    if flags.nodes < 2 or times < (flags.soak is None) or not faults:
        raise UserError("--nodes must be 2 or more, --times 1 or more (in a soak 0), and --faults name one or more")
    if flags.run_dir is not None and flags.run_dir.exists() and any(flags.run_dir.iterdir()):
        raise UserError(f"--run-dir {flags.run_dir} is not empty: choose another folder")
    if flags.soak is not None and flags.address is not None:
        raise UserError("--soak looks into the processes of this machine: leave --address out")
    check_files(json=flags.json)
    config = TrainConfig.from_mapping(
        {
            "env": flags.env,
            "total_episodes": flags.updates * flags.episodes_per_update if flags.soak is None else flags.soak,
            "episodes_per_update": flags.episodes_per_update,
            "episode_steps": flags.episode_steps,
            **({} if flags.soak is None else {"epochs": 1}),
            "evaluate_every": 0,
            "checkpoint_every": 5,
            "seed": flags.seed,
        },
        "ray-rl chaos",
    )
    plan = make_plan(faults, times, config.n_updates, flags.seed)
    console = make_console()
    with contextlib.ExitStack() as stack:
        folder = flags.run_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-rl-chaos-")))
        address, cause, cluster = _cluster(flags, stack)

        def say(text: str) -> None:
            console.print(text, style="dim", soft_wrap=True)

        outcome: Drill | Soak
        if flags.soak is None:
            outcome = run_drill(config, plan, folder.resolve(), address, cause, say)
        else:
            outcome = hold_soak(config, plan, folder.resolve() / "soak", address, cause, cluster, say)
    for part in (_table(outcome), _proof(outcome)) if isinstance(outcome, Drill) else tell_soak(outcome):
        console.print(part, soft_wrap=isinstance(part, str))
    machine = this_machine()
    console.print(machine.describe(), style="dim", soft_wrap=True)
    grown = {"grown": outcome.grown} if isinstance(outcome, Soak) else {}
    save_json(flags.json, {**asdict(outcome), **grown, "holds": outcome.holds, "machine": machine.to_json()})
    return 0 if outcome.holds else 1


def _cluster(flags: ChaosFlags, stack: contextlib.ExitStack) -> tuple[str, Callable[[FaultName], str], Any]:
    """Connect to the cluster that the flags name, or make one: its address, what causes faults there, the one made."""
    from ray_rl.chaos.ray_faults import cause
    from ray_rl.ray_local_cluster import add_nodes, local_cluster
    from ray_rl.ray_runtime import FAST_FAILURE, connection

    # A soak keeps a machine busy on which silence is no sign of death.
    system_config = FAST_FAILURE if flags.soak is None else {}
    cluster: Any = stack.enter_context(local_cluster(system_config)) if flags.address is None else None
    if cluster is not None:
        add_nodes(cluster, flags.nodes)
    address: str = cluster.address if flags.address is None else flags.address
    stack.enter_context(connection(address, 1))
    rng = np.random.default_rng(flags.seed)

    def cause_and_mend(fault: FaultName) -> str:
        whom = cause(fault, rng)
        if cluster is not None and fault in ("node", "silence"):
            add_nodes(cluster)
        return whom

    return address, cause_and_mend, cluster


def _table(drill: Drill) -> Table:
    title = f"{drill.n_updates} updates of {drill.episodes_per_update} episodes, {drill.usual_update_s:.2f} s each"
    table = Table(title=title, title_justify="left")
    for name in ("fault", "what happened", "whom it hit"):
        table.add_column(name)
    table.add_column("after update", justify="right")
    table.add_column("cost (s)", justify="right")
    for d in drill.disturbances:
        table.add_row(d.fault, MEANING[d.fault], d.whom, str(d.update), f"{d.cost_s:.1f}")
    return table


def _proof(drill: Drill) -> str:
    wrong, differing = drill.wrong_updates, drill.differing_arrays
    consumed = f"NOT so in updates {wrong}" if wrong else f"all {drill.n_updates} updates"
    weights = (
        f"NO: {', '.join(differing)} differ" if differing else "yes, and so are Adam's moments and the returns' scale"
    )
    return (
        f"every update consumed exactly its episodes, each once: {consumed}\n"
        f"final weights bit-identical to the undisturbed run in one process: {weights}"
    )
