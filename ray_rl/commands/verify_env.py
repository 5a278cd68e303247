"""``ray-rl verify-env``: hold the simulator against recorded CybORG episodes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from ray_rl.commands.flags import parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import RuleSet, UserError
from ray_rl.envs.cage2.traces import replay_folder


@dataclass(frozen=True)
class VerifyFlags:
    """Flags of ``ray-rl verify-env``."""

    traces: Path
    """Folder of recorded episodes (.npz); subfolders head and leaderboard tell the rule set."""
    rules: RuleSet | None = None
    """Rule set, where the folders do not tell it."""
    json: Path | None = None
    """File for what the table shows, as JSON."""


def run(words: list[str]) -> int:
    """Replay recorded episodes; returns 0 only when nothing differs in any step."""
    flags = parse(VerifyFlags, "verify-env", "Replay recorded CybORG episodes step by step: nothing may differ.", words)
    if not flags.traces.is_dir():
        raise UserError(f"--traces {flags.traces} is no folder")
    reports = replay_folder(flags.traces, flags.rules)
    table = Table()
    for name in ("trace", "rules", "episodes", "steps", "mismatches"):
        table.add_column(name, justify="left" if name in ("trace", "rules") else "right")
    for report in reports:
        numbers = (report.n_episodes, report.n_steps, report.n_mismatches)
        table.add_row(report.path.stem, report.rules, *(f"{n:,}" for n in numbers))
    table.add_section()
    n_episodes, n_steps, n_wrong = (
        sum(getattr(report, name) for report in reports) for name in ("n_episodes", "n_steps", "n_mismatches")
    )
    table.add_row("all", "", *(f"{n:,}" for n in (n_episodes, n_steps, n_wrong)), style="bold")
    console = make_console()
    console.print(table)
    for report in reports:
        if report.n_mismatches:
            console.print(report.first_difference, markup=False, soft_wrap=True)
            break
    save_json(flags.json, {"traces": [asdict(report) for report in reports], "n_mismatches": n_wrong})
    return 0 if n_wrong == 0 else 1
