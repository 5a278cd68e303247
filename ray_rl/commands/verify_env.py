"""``ray-rl verify-env``: hold the simulator against CybORG, recorded or live."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ray_rl.commands.flags import parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import RuleSet, UserError
from ray_rl.envs.cage2.traces import ReplayReport, replay_folder
from ray_rl.envs.cyborg.blue_policies import BLUE_POLICIES, MakeBlue, Network
from ray_rl.envs.cyborg.find import Upstream, load
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.returns import MARGIN, Equivalence, compare_returns, simulated_returns
from ray_rl.envs.cyborg.rule_set import identify
from ray_rl.envs.cyborg.side_by_side import PairReport, play_side_by_side
from ray_rl.evaluate.policies import load_policy
from ray_rl.policy.acting import acting_policy
from ray_rl.seeding import Purpose, episode_seeds

_SIMULATED_PER_LIVE = 4
_FEWEST_SIMULATED = 400
_FIRST_SIMULATED = 10**9
"""Index from which the simulator's own episodes take their seeds, far behind CybORG's."""


@dataclass(frozen=True)
class VerifyFlags:
    """Flags of ``ray-rl verify-env``."""

    traces: Path | None = None
    """Folder of recorded episodes (.npz); subfolders head and leaderboard tell the rule set."""
    cyborg_path: str | None = None
    """Folder of a CybORG 2.1 checkout to play against live. Without this and --traces, an installed one."""
    episodes: int = 2000
    """Episodes to play live, shared out among all pairs of red agents and Blue policies."""
    episode_steps: int = 100
    """Steps of a live episode."""
    checkpoint: Path | None = None
    """Trained policy to play as well: a run's folder, a checkpoint, a saved policy, or the name of a shipped one."""
    record: Path | None = None
    """Folder for recordings of the live episodes, as --traces takes them."""
    seed: int = 0
    """Decides the live episodes."""
    rules: RuleSet | None = None
    """Rule set: of the traces, where their folders do not tell it; that the live CybORG must have."""
    json: Path | None = None
    """File for what the tables show, as JSON."""


@dataclass(frozen=True)
class _Live:
    """What the live episodes showed."""

    upstream: Upstream
    rules: str
    pairs: tuple[PairReport, ...]
    returns: tuple[Equivalence, ...]


def run(words: list[str]) -> int:
    """Compare step by step; returns 0 only when nothing differs in any step, and no mean return."""
    what = "Hold the simulator against CybORG, recorded or live: no step may differ."
    flags = parse(VerifyFlags, "verify-env", what, words)
    if flags.traces is not None and not flags.traces.is_dir():
        raise UserError(f"--traces {flags.traces} is no folder")
    if flags.episodes < 1 or flags.episode_steps < 1 or flags.seed < 0:
        raise UserError("--episodes and --episode-steps must be 1 or more, --seed 0 or more")
    console = make_console()
    result: dict[str, Any] = {}
    wrong = 0
    if flags.traces is not None:
        reports = replay_folder(flags.traces, flags.rules)
        _show_traces(console, reports)
        wrong += sum(report.n_mismatches for report in reports)
        result["traces"] = [asdict(report) for report in reports]
    if flags.cyborg_path is not None or flags.traces is None:
        live = _play_live(flags, console)
        _show_live(console, live)
        wrong += sum(pair.n_mismatches for pair in live.pairs)
        wrong += sum(comparison.verdict == "different" for comparison in live.returns)
        result["live"] = _as_json(live)
    save_json(flags.json, {**result, "n_mismatches": wrong})
    return 0 if wrong == 0 else 1


def _show_traces(console: Console, reports: Sequence[ReplayReport]) -> None:
    table = Table(title="recorded episodes, replayed in the simulator", title_justify="left")
    for name in ("trace", "rules", "episodes", "steps", "mismatches"):
        table.add_column(name, justify="left" if name in ("trace", "rules") else "right")
    for report in reports:
        numbers = (report.n_episodes, report.n_steps, report.n_mismatches)
        table.add_row(report.path.stem, report.rules, *(f"{n:,}" for n in numbers))
    table.add_section()
    sums = (sum(getattr(r, name) for r in reports) for name in ("n_episodes", "n_steps", "n_mismatches"))
    table.add_row("all", "", *(f"{n:,}" for n in sums), style="bold")
    console.print(table)
    _show_first_difference(console, reports)


def _show_first_difference(console: Console, reports: Sequence[ReplayReport] | Sequence[PairReport]) -> None:
    for report in reports:
        if report.n_mismatches:
            console.print(report.first_difference, markup=False, soft_wrap=True)
            return


def _play_live(flags: VerifyFlags, console: Console) -> _Live:
    policies = dict(BLUE_POLICIES)
    if flags.checkpoint is not None:
        policies["trained"] = _trained(flags.checkpoint)
    upstream = load(flags.cyborg_path)
    game = Game(upstream)
    rules = identify(game, upstream)
    if flags.rules is not None and flags.rules != rules:
        raise UserError(
            f"the CybORG in {upstream.folder} plays by the rules {rules!r}, --rules says {flags.rules!r}: leave "
            "--rules out, or check out the other version (26ce1c1 for head, 606813b for leaderboard)"
        )
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("CybORG and simulator side by side", total=flags.episodes)
        pairs = tuple(
            play_side_by_side(
                game,
                rules,
                policies,
                flags.episodes,
                seed=flags.seed,
                n_steps=flags.episode_steps,
                save_to=None if flags.record is None else flags.record / rules,
                on_chunk=lambda done: progress.update(task, completed=done),
            )
        )
        task = progress.add_task("the simulator by itself", total=len(pairs))
        returns = tuple(
            _compare_freely(pair, policies[pair.blue], rules, flags, number)
            for number, pair in enumerate(progress.track(pairs, task_id=task))
        )
    return _Live(upstream, rules, pairs, returns)


def _compare_freely(pair: PairReport, make_blue: MakeBlue, rules: str, flags: VerifyFlags, number: int) -> Equivalence:
    """Returns of the pair in CybORG against as many as tell in the simulator, which draws for itself."""
    count = max(_FEWEST_SIMULATED, _SIMULATED_PER_LIVE * pair.n_episodes)
    seeds = episode_seeds(flags.seed, Purpose.VERIFY, _FIRST_SIMULATED + number * 10**6, count)
    return compare_returns(pair.returns, simulated_returns(pair.red, make_blue, rules, seeds, flags.episode_steps))


def _trained(name: Path) -> MakeBlue:
    trained = load_policy(name)
    env = trained.env
    if env.env not in ("cage2", "cyborg"):
        raise UserError(f"--checkpoint {name} was trained in {env.env!r}, not in CAGE-2")
    if env.workflow is not None:
        raise UserError(f"--checkpoint {name} follows an order of repair, which verify-env does not give: name another")
    return lambda seed: Network(acting_policy(trained.weights), seed, env.table, env.view, env.actions)


def _show_live(console: Console, live: _Live) -> None:
    table = Table(title=f"live CybORG in {live.upstream.folder}, rules {live.rules}", title_justify="left")
    table.add_column("Red")
    table.add_column("Blue")
    for name in ("episodes", "steps", "mismatches", "CybORG's return", "simulator's", "difference ± 90 %", "margin"):
        table.add_column(name, justify="right")
    table.add_column("means")
    for pair, freely in zip(live.pairs, live.returns, strict=True):
        table.add_row(
            pair.red,
            pair.blue,
            *(f"{n:,}" for n in (pair.n_episodes, pair.n_steps, pair.n_mismatches)),
            *(f"{mean:.2f}" for mean in freely.means),
            *_in_words(freely),
            freely.verdict,
        )
    table.add_section()
    sums = (sum(getattr(p, name) for p in live.pairs) for name in ("n_episodes", "n_steps", "n_mismatches"))
    table.add_row("all", "", *(f"{n:,}" for n in sums), style="bold")
    console.print(table)
    console.print(
        "mismatches: steps in which both tables, reward, success flags, Red's action or the true state differ, the "
        "simulator being given CybORG's random outcomes. Returns: each plays by its own draws; equivalent means by two "
        f"one-sided tests at 5 %, margin {MARGIN} standard deviations of one return.",
        style="dim",
        soft_wrap=True,
    )
    _show_first_difference(console, live.pairs)


def _in_words(freely: Equivalence) -> tuple[str, str]:
    """Difference with its interval, and margin; too few episodes have neither."""
    if freely.half_width is None or freely.margin is None:
        return f"{freely.difference:+.2f}", ""
    return f"{freely.difference:+.2f} ± {freely.half_width:.2f}", f"{freely.margin:.2f}"


def _as_json(live: _Live) -> dict[str, Any]:
    rows = itertools.starmap(
        lambda pair, freely: {
            **{name: getattr(pair, name) for name in ("red", "blue", "n_episodes", "n_steps", "n_mismatches")},
            "first_difference": pair.first_difference,
            "returns": asdict(freely),
        },
        zip(live.pairs, live.returns, strict=True),
    )
    return {"folder": str(live.upstream.folder), "rules": live.rules, "pairs": list(rows)}
