"""``ray-rl evaluate``: play a trained defender by the challenge's protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from ray_rl.commands.flags import parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import CollectConfig, CollectorName, RuleSet, UserError, suggest
from ray_rl.episodes import PROTOCOL_STEPS, RED_AGENTS
from ray_rl.evaluate.protocol import Scores, evaluate_checkpoint


@dataclass(frozen=True)
class EvaluateFlags:
    """Flags of ``ray-rl evaluate``."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Folder of a run (its latest checkpoint is taken) or of a checkpoint."""
    episodes: int = 1000
    """Episodes per cell."""
    sampled: bool = False
    """Draw actions from the policy instead of taking the likeliest."""
    rules: RuleSet | None = None
    """Rule set to play; none: the one it was trained on."""
    steps: tuple[int, ...] = PROTOCOL_STEPS
    """Episode lengths, in steps."""
    red_agents: tuple[str, ...] = RED_AGENTS
    """Attackers."""
    seed: int = 0
    """Decides the evaluation's episodes; training never uses them."""
    collector: CollectorName = "ray-tasks"
    """How episodes are run."""
    n_workers: int | None = None
    """Worker processes; none: one per CPU."""
    address: str | None = None
    """Address of a running Ray cluster, or auto; none: a Ray of its own."""
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
    scores = evaluate_checkpoint(
        flags.checkpoint,
        n_episodes=flags.episodes,
        greedy=not flags.sampled,
        seed=flags.seed,
        collect=CollectConfig(collector=flags.collector, n_workers=flags.n_workers, address=flags.address),
        rules=flags.rules,
        steps=flags.steps,
        red_agents=flags.red_agents,
    )
    console = make_console()
    how = "greedy" if scores.greedy else "sampled"
    console.print(f"{scores.environment}", style="bold", soft_wrap=True)
    console.print(f"mean return ± 95 % interval, {flags.episodes} episodes per cell, {how}, seed {scores.seed}")
    console.print(score_table(scores))
    console.print(f"{scores.checkpoint}, trained on {scores.trained_on}", style="dim", soft_wrap=True)
    save_json(flags.json, scores.to_json())
    return 0


def score_table(scores: Scores) -> Table:
    """The scores as a table; attackers across, lengths down."""
    agents = list(dict.fromkeys(cell.red_agent for cell in scores.cells))
    table = Table()
    table.add_column("steps", justify="right")
    for agent in agents:
        table.add_column(agent, justify="right")
    for steps in dict.fromkeys(cell.steps for cell in scores.cells):
        row = [cell for cell in scores.cells if cell.steps == steps]
        table.add_row(str(steps), *(f"{cell.mean:.2f} ± {cell.half_width:.2f}" for cell in row))
    table.add_section()
    table.add_row("total", f"{scores.total:.2f} ± {scores.total_half_width:.2f}", style="bold")
    return table
