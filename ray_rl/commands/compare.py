"""``ray-rl compare``: the methods of collecting episodes, side by side on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.compare.chart import draw
from ray_rl.compare.report import failures, tables, to_markdown
from ray_rl.compare.study import METHODS, MethodName, Study, compare, default_worker_counts
from ray_rl.config import EnvConfig, RuleSet, UserError, describe
from ray_rl.interruption import sigterm_as_ctrl_c

_DESCRIPTION = (
    "Run the same episodes by each method in interleaved rounds, and say what each costs and why. --env latency stands "
    "for emulated hosts: its steps wait instead of computing, so that 100 workers can be compared on a few cores."
)

_STOCK: dict[str, Any] = {"table": "stock", "view": "table", "actions": "all"}
"""What CybORG's own wrapper shows and takes, with which the naive stand-in plays it."""


@dataclass(frozen=True)
class CompareFlags:
    """Flags of ``ray-rl compare``."""

    methods: tuple[MethodName, ...] = METHODS
    """Methods to compare. naive: a pool that builds the environment and sends the weights for every episode."""
    env: str = "cage2"
    """cage2, cyborg, latency, or any gymnasium id."""
    rules: RuleSet = "head"
    """CAGE-2 rule set."""
    red_agent: str = "B_lineAgent"
    """Attacker."""
    episode_steps: int = 100
    """Steps per episode."""
    cyborg_path: str | None = None
    """Folder of a CybORG 2.1 checkout, for --env cyborg."""
    latency_mean_s: float = 0.013
    """Mean wait of a step of --env latency, in seconds."""
    latency_max_s: float = 0.05
    """Longest wait, in seconds."""
    n_workers: int | None = None
    """Workers of each method; none: one per CPU, 100 for latency."""
    scaling: tuple[int, ...] = ()
    """Numbers of workers, for a scaling curve in place of one number."""
    episodes: int = 100_000
    """Most episodes of a measurement; it ends when they run out."""
    seconds: float = 10.0
    """Time for which finished episodes are counted, in seconds, once every worker works."""
    updates: int = 1
    """Times that weights are published while the clock runs."""
    rounds: int = 3
    """Measurements of each method, interleaved."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the hidden layers of the policy that acts."""
    seed: int = 0
    """Decides the episodes."""
    json: Path | None = None
    """File for everything measured, as JSON."""
    markdown: Path | None = None
    """File for the tables, as Markdown."""
    plot: Path | None = None
    """Picture of the figures (PNG)."""


def run(words: list[str]) -> int:
    """Compare as the flags say; returns 1 when no method could be run, or it was stopped."""
    flags = parse(CompareFlags, "compare", _DESCRIPTION, words)
    check_files(json=flags.json, markdown=flags.markdown, plot=flags.plot)
    study = _study(flags)
    console = make_console()
    with sigterm_as_ctrl_c(), console.status("starting") as status:
        comparison = compare(study, lambda text: status.update(text) if console.is_terminal else console.print(text))
    for table in tables(comparison):
        console.print(table)
    for line in failures(comparison):
        console.print(line, style="red", markup=False, soft_wrap=True)
    console.print(comparison.machine.describe(), style="dim", soft_wrap=True)
    save_json(flags.json, comparison.to_json())
    if flags.markdown is not None:
        try:
            flags.markdown.write_text(to_markdown(comparison), encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write --markdown {flags.markdown}: {error.strerror}") from error
    if flags.plot is not None:
        draw(comparison, flags.plot)
    if comparison.stopped:
        raise KeyboardInterrupt
    return 0 if any(result.runs for result in comparison.results) else 1


def _study(flags: CompareFlags) -> Study:
    try:
        env = EnvConfig(
            env=flags.env,
            rules=flags.rules,
            red_agent=flags.red_agent,
            episode_steps=flags.episode_steps,
            cyborg_path=flags.cyborg_path,
            latency_mean_s=flags.latency_mean_s,
            latency_max_s=flags.latency_max_s,
            **(_STOCK if flags.env == "cyborg" else {}),
        )
    except ValidationError as error:
        raise UserError(describe(error)) from error
    counts = flags.scaling or ((flags.n_workers,) if flags.n_workers is not None else default_worker_counts(env))
    if min(counts) < 1 or flags.rounds < 1 or flags.updates < 1 or flags.seed < 0 or min(flags.hidden_sizes) < 1:
        raise UserError(
            "--n-workers, --scaling, --rounds, --updates and --hidden-sizes must be 1 or more, --seed 0 or more"
        )
    if flags.seconds <= 0:
        raise UserError(f"--seconds must be positive, got {flags.seconds}")
    if flags.episodes < flags.updates:
        raise UserError(f"--episodes ({flags.episodes}) must be at least --updates ({flags.updates})")
    if not flags.methods:
        raise UserError(f"--methods needs at least one of {', '.join(METHODS)}")
    return Study(
        methods=tuple(dict.fromkeys(flags.methods)),
        env=env,
        n_workers=tuple(sorted(set(counts))),
        n_episodes=flags.episodes,
        seconds=flags.seconds,
        n_updates=flags.updates,
        rounds=flags.rounds,
        hidden_sizes=flags.hidden_sizes,
        seed=flags.seed,
    )
