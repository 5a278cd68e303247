"""``ray-rl evaluate``: play a trained defender by the challenge's protocol."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from ray_rl.commands.flags import parse, place, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import CollectConfig, CollectorName, RuleSet, UserError, suggest
from ray_rl.episodes import PROTOCOL_STEPS, RED_AGENTS
from ray_rl.evaluate.leaderboard import is_complete, standing
from ray_rl.evaluate.protocol import CellScore, Scores, evaluate_checkpoint
from ray_rl.seeding import Purpose
from ray_rl.storage import Location, storage_errors, write_whole


@dataclass(frozen=True)
class EvaluateFlags:
    """Flags of ``ray-rl evaluate``."""

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URL")]
    """Folder or URL of a run (its latest checkpoint is taken), of a checkpoint or of a saved policy, or the name of one
    that ships with ray_rl: record, record-leaderboard, record-raw, record-raw-leaderboard."""
    episodes: int = 1000
    """Episodes per cell."""
    sampled: bool = False
    """Draw actions from the policy instead of taking the likeliest."""
    rules: RuleSet | None = None
    """Rule set to play; none: the one it was trained on."""
    env: Literal["cage2", "cyborg"] | None = None
    """The built-in simulator or CybORG itself; none: what it was trained on."""
    cyborg_path: str | None = None
    """Folder of a CybORG 2.1 checkout, for --env cyborg."""
    steps: tuple[int, ...] = PROTOCOL_STEPS
    """Episode lengths, in steps."""
    red_agents: tuple[str, ...] = RED_AGENTS
    """Attackers."""
    workflow: str | None = None
    """Order of repair to follow, by its names or index, or random; none: the one it was trained on."""
    seed: int = 0
    """Decides the evaluation's episodes; training never uses them."""
    validate: bool = False
    """Play on validation seeds: to choose between policies, so that the protocol's seeds are touched only once."""
    collector: CollectorName = "ray-tasks"
    """How episodes are run."""
    n_workers: int | None = None
    """Worker processes; none: one per CPU."""
    address: str | None = None
    """Address of a running Ray cluster, or auto; none: a Ray of its own."""
    report: Path | None = None
    """HTML file for a page of its own: scores, rewards, hosts, actions, and three episodes step by step."""
    report_episodes: int = 300
    """Episodes against each red agent behind the page's pictures."""
    json: Path | None = None
    """File for what the table shows, as JSON."""


def run(words: list[str]) -> int:
    """Evaluate as the flags say; returns the exit code."""
    flags = parse(EvaluateFlags, "evaluate", "Play a trained defender by the challenge's protocol.", words)
    if flags.episodes < 1 or (flags.n_workers is not None and flags.n_workers < 1) or flags.seed < 0:
        raise UserError("--episodes and --n-workers must be 1 or more, --seed 0 or more")
    if not flags.steps or min(flags.steps) < 1:
        raise UserError(f"--steps must be 1 or more, got {flags.steps}")
    for name in flags.red_agents:
        if name not in RED_AGENTS:
            raise UserError(f"unknown red agent {name!r}{suggest(name, RED_AGENTS)}")
    if flags.cyborg_path is not None and flags.env != "cyborg":
        raise UserError("--cyborg-path needs --env cyborg")
    _check_report(flags)
    policy = place("checkpoint", flags.checkpoint)
    scores = evaluate_checkpoint(
        policy,
        n_episodes=flags.episodes,
        greedy=not flags.sampled,
        seed=flags.seed,
        collect=CollectConfig(collector=flags.collector, n_workers=flags.n_workers, address=flags.address),
        rules=flags.rules,
        cyborg_path=flags.cyborg_path,
        in_cyborg=flags.env == "cyborg",
        purpose=Purpose.VALIDATE if flags.validate else Purpose.EVALUATE,
        steps=flags.steps,
        red_agents=flags.red_agents,
        workflow=flags.workflow,
    )
    show(scores, flags.episodes)
    if flags.report is not None:
        _write_report(flags, scores, policy, flags.report)
    content = scores.to_json() | {"standing": standing_of(scores)}
    _leave_in_run(policy, content)
    save_json(flags.json, content)
    return 0


def _leave_in_run(policy: Location, content: dict[str, Any]) -> None:
    """Write ``evaluation.json`` into the run that was evaluated; one that may only be read stays as it is."""
    run_dir = policy.parent.parent if policy.parent.name == "checkpoints" else policy
    try:
        with storage_errors():
            if (run_dir / "config.yaml").exists():
                write_whole(run_dir / "evaluation.json", (json.dumps(content, indent=2, default=str) + "\n").encode())
    except OSError as error:
        print(f"note: {run_dir / 'evaluation.json'} was not written: {error.strerror or error}", file=sys.stderr)


def _check_report(flags: EvaluateFlags) -> None:
    if flags.report_episodes < 1:
        raise UserError("--report-episodes must be 1 or more")
    if flags.report is not None and not flags.report.absolute().parent.is_dir():
        raise UserError(f"--report {flags.report}: there is no folder {flags.report.absolute().parent}")


def _write_report(flags: EvaluateFlags, scores: Scores, policy: Location, path: Path) -> None:
    from ray_rl.evaluate.report import write_report  # the simulator's names are needed by the page alone

    if not scores.environment.startswith(("cage2 ", "cyborg ")):
        raise UserError(f"--report is about CAGE-2, not about {scores.environment}")
    try:
        write_report(scores, path, policy, flags.report_episodes, flags.cyborg_path)
    except OSError as error:
        raise UserError(f"cannot write --report {path}: {error.strerror}") from error
    print(f"report: {path}")


def show(scores: Scores, n_episodes: int) -> None:
    """Print scores with what is needed to compare and reproduce them."""
    console = make_console()
    how = "greedy" if scores.greedy else "sampled"
    console.print(f"rules {scores.rules}: {scores.environment}", style="bold", soft_wrap=True)
    console.print(f"mean return ± 95 % interval, {n_episodes} episodes per cell, {how}, seed {scores.seed}")
    if scores.purpose == "validate":
        console.print(
            "validation seeds: to choose between policies; the score to report is that on the protocol's seeds"
        )
    console.print(score_table(scores))
    for line in standing_of(scores):
        console.print(line, soft_wrap=True)
    made_by = f"; {scores.made_by}" if scores.made_by else ""
    console.print(f"{scores.checkpoint}, trained on {scores.trained_on}{made_by}", style="dim", soft_wrap=True)


def standing_of(scores: Scores) -> list[str]:
    """Where the total stands in the published table; nothing for environments that it is not about."""
    if not scores.environment.startswith(("cage2 ", "cyborg ")):
        return []
    if not is_complete([(cell.red_agent, cell.steps) for cell in scores.cells]):
        return ["the published table adds up nine cells, three red agents over 30, 50 and 100 steps: not all were run"]
    if "table=stock" not in scores.environment:
        return ["the published table holds for the stock table of observations: this total is not comparable with it"]
    return standing(scores.total, scores.total_half_width, scores.rules, scores.sees_raw_events)


def score_table(scores: Scores) -> Table:
    """The scores as a table; attackers across, lengths down."""
    agents = list(dict.fromkeys(cell.red_agent for cell in scores.cells))
    table = Table()
    table.add_column("steps", justify="right")
    for agent in agents:
        table.add_column(agent, justify="right")
    for steps in dict.fromkeys(cell.steps for cell in scores.cells):
        row = [cell for cell in scores.cells if cell.steps == steps]
        table.add_row(str(steps), *(_show_cell(cell) for cell in row))
    table.add_section()
    table.add_row("total", f"{scores.total:.2f} ± {scores.total_half_width:.2f}", style="bold")
    return table


def _show_cell(cell: CellScore) -> str:
    followed = "" if cell.compliance is None else f" ({cell.compliance:.0%} compliant)"
    return f"{cell.mean:.2f} ± {cell.half_width:.2f}{followed}"
