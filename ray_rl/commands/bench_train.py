"""``ray-rl bench train``: training end to end, beside what its parts allow on this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

from rich.table import Table

from ray_rl.bench.machine import this_machine
from ray_rl.bench.rounds import Spread
from ray_rl.bench.time_account import PARTS
from ray_rl.bench.train import MODES, TrainBench, bench_train
from ray_rl.bench.versions import OWN_FOLDER, check_version, in_turn
from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import ActionSetName, DeviceName, Precision, TrainConfig, UserError, ViewName

_DESCRIPTION = (
    "Measures in alternating rounds the learner alone (a), the collectors alone (b) and both together, strict and "
    "overlapped, and sets the latter beside the bound that (a) and (b) imply on these cores: 1/(1/a + 1/b) strict, and "
    "the smaller of a, b and cores per core-seconds of an episode overlapped."
)
_MATTERS = ("processor", "cores", "versions")
"""What must be the same for two results to be compared."""


@dataclass(frozen=True)
class BenchTrainFlags:
    """Flags of ``ray-rl bench train``."""

    rounds: int = 3
    """Times that everything is measured."""
    updates: int = 40
    """Updates of a training; the first fifth is left out of the figures."""
    episodes_per_update: int = 200
    """Episodes that one update learns from."""
    view: ViewName = "winner"
    """What Blue sees."""
    actions: ActionSetName = "compact"
    """What Blue may do."""
    hidden_size: int = 64
    """Units of both hidden layers of the networks."""
    n_workers: int | None = None
    """Worker processes; none: one per CPU."""
    n_learners: int = 1
    """Learner processes that share the episodes of an update."""
    learner_threads: int = 2
    """Threads of each learner."""
    seed: int = 0
    """Decides the episodes, first weights and minibatches."""
    json: Path | None = None
    """File for what the tables show, as JSON."""
    learner_device: DeviceName = "cpu"
    """What the learner computes on; cuda: an NVIDIA GPU."""
    learner_precision: Precision = "full"
    """mixed: what the hidden layers multiply is rounded to bfloat16."""
    against: Path | None = None
    """What to compare with: a file that an earlier run wrote by --json; or a checkout of another version, which is then
    measured in turn with this one."""


def run(words: list[str]) -> int:
    """Measure and show; returns the exit code."""
    flags = parse(BenchTrainFlags, "bench train", _DESCRIPTION, words)
    if flags.rounds < 1 or flags.updates < 2:
        raise UserError("--rounds must be 1 or more, and --updates 2 or more")
    check_files(json=flags.json)
    config = _config(flags)
    console = make_console()

    def say(line: str) -> None:
        console.print(line, style="dim", soft_wrap=True)

    machine = this_machine()
    other: TrainBench | None
    takes_turns = flags.against is not None and flags.against.is_dir()
    if flags.against is not None and takes_turns:
        folders = (check_version(flags.against), OWN_FOLDER)
        theirs, own = in_turn(_one_round(flags), folders, flags.rounds, say)
        result, other = replace(TrainBench.of_runs(own), machine=machine), TrainBench.of_runs(theirs)
    else:
        other = None if flags.against is None else _earlier(flags.against)
        result = bench_train(config, flags.rounds, say)
    console.print(_figures_table(result, other, takes_turns))
    console.print(_parts_table(result))
    console.print(result.machine.describe(), style="dim", soft_wrap=True)
    if other is not None:
        for line in _differences(result, other):
            console.print(line, soft_wrap=True)
    save_json(flags.json, result.to_json() | ({} if other is None else {"against": other.to_json()}))
    return 0


def _one_round(flags: BenchTrainFlags) -> list[str]:
    """The command that measures a training once; what is as it is by default is left out, for versions without it."""
    words = ["bench", "train", "--rounds", "1"]
    for field in fields(flags):
        value = getattr(flags, field.name)
        if value != field.default and field.name not in ("rounds", "json", "against"):
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return words


def _config(flags: BenchTrainFlags) -> TrainConfig:
    values = {
        "view": flags.view,
        "actions": flags.actions,
        "hidden_sizes": (flags.hidden_size, flags.hidden_size),
        "n_workers": flags.n_workers,
        "n_learners": flags.n_learners,
        "learner_threads": flags.learner_threads,
        "learner_device": flags.learner_device,
        "learner_precision": flags.learner_precision,
        "episodes_per_update": flags.episodes_per_update,
        "total_episodes": flags.updates * flags.episodes_per_update,
        "evaluate_every": 0,
        "seed": flags.seed,
    }
    return TrainConfig.from_mapping(values, "bench train")


def _earlier(path: Path) -> TrainBench:
    """What an earlier run saved.

    Raises:
        UserError: When the file cannot be read, or is nothing that this command wrote.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read --against {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--against {path} is no JSON file") from error
    try:
        return TrainBench.of_runs([found])
    except (KeyError, TypeError) as error:
        raise UserError(f"--against {path} was not written by ray-rl bench train --json") from error


def _figures_table(result: TrainBench, other: TrainBench | None, takes_turns: bool) -> Table:
    table = Table(title="Training: episodes per second, and core-milliseconds of an episode", title_justify="left")
    table.add_column("what")
    table.add_column("median", justify="right")
    table.add_column("lowest - highest", justify="right")
    table.add_column("core-ms", justify="right")
    if other is not None:
        table.add_column("other", justify="right")
        table.add_column("this / other", justify="right")
    core_s = result.core_s
    for name, figure in result.figures.items():
        style = "{:.1%}" if name.startswith("share") else "{:,.0f}"
        cells = [name, *_cells(figure, style), f"{1e3 * core_s[name].median:.2f}" if name in core_s else ""]
        if other is not None:
            beside = other.figures[name]
            cells += [style.format(beside.median), _ratio(figure, beside, takes_turns)]
        table.add_row(*cells)
    return table


def _ratio(figure: Spread, beside: Spread, takes_turns: bool) -> str:
    """How many times the other; round by round where both were measured in the same rounds."""
    if not takes_turns:
        return f"{figure.median / beside.median:.2f}"
    ratio = figure.over(beside)
    return f"{ratio.median:.2f} ({ratio.low:.2f} - {ratio.high:.2f})"


def _cells(figure: Spread, style: str) -> tuple[str, str]:
    return style.format(figure.median), f"{style.format(figure.low)} - {style.format(figure.high)}"


def _parts_table(result: TrainBench) -> Table:
    table = Table(title="Where the time of an update goes, on the driver's clock", title_justify="left")
    table.add_column("part")
    for mode in MODES:
        table.add_column(f"{mode}, ms", justify="right")
        table.add_column("share", justify="right")
    table.add_column("what it is")
    parts_s = result.parts_s
    totals_s = {mode: sum(part.median for part in parts.values()) for mode, parts in parts_s.items()}
    for part, meaning in PARTS.items():
        cells = []
        for mode in MODES:
            seconds = parts_s[mode][part].median
            cells += [f"{1e3 * seconds:.1f}", f"{seconds / totals_s[mode]:.1%}"]
        table.add_row(part, *cells, meaning)
    return table


def _differences(result: TrainBench, other: TrainBench) -> list[str]:
    """What makes two results hard to compare."""
    pairs = [(name, getattr(other.machine, name), getattr(result.machine, name)) for name in _MATTERS]
    for group, values in result.config.items():
        beside = other.config.get(group, {})
        pairs += [(name, beside[name], value) for name, value in values.items() if name in beside]
    return [f"careful: {name} was {was}, and is {now}" for name, was, now in pairs if was != now]
