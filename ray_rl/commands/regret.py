"""``ray-rl regret``: how soon each method of searching finds the best order, over scores that are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import UserError
from ray_rl.workflow.orders import N_ORDERS, order_name

_DESCRIPTION = (
    "Repeat searches over the scores that exhaustive searches found, each score seen once with its noise, and compare "
    "how soon gp-ucb, ei and random find the best order, and what the trainings until then cost."
)


@dataclass(frozen=True)
class RegretFlags:
    """Flags of ``ray-rl regret``."""

    truth: tuple[Path, ...]
    """JSON of an exhaustive search; of several, with other seeds, the means count, and what they differ by is noise."""
    searches: int = 20
    """Searches of each method."""
    trainings: int = 60
    """Trainings of each search, at most 120."""
    n_start: int = 5
    """Orders that gp-ucb and ei spread out before they look at scores."""
    beta_scale: float = 0.2
    """Factor of β_t, as in ray-rl search."""
    seed: int = 0
    """Decides noise and first orders; search r has this seed + r."""
    json: Path | None = None
    """File for all curves, as JSON."""
    plot: Path | None = None
    """Picture of the curves (PNG)."""


def run(words: list[str]) -> int:
    """Compare the methods as the flags say."""
    flags = parse(RegretFlags, "regret", _DESCRIPTION, words)
    check_files(json=flags.json, plot=flags.plot)
    if flags.searches < 1 or flags.n_start < 0 or flags.beta_scale <= 0 or flags.seed < 0:
        raise UserError("--searches must be 1 or more, --beta-scale positive, --n-start and --seed 0 or more")
    if not 1 <= flags.trainings <= N_ORDERS:
        raise UserError(f"--trainings must be 1 to {N_ORDERS}, got {flags.trainings}")

    from ray_rl.search.methods import Rule
    from ray_rl.search.regret import draw, measure_regret, pool, table, to_json
    from ray_rl.search.report import load_truth

    truths = [load_truth(path) for path in flags.truth]
    if len(truths) == 0 or len(pool(truths)[0].orders) == 0:
        raise UserError(f"--truth {' '.join(map(str, flags.truth))}: no order met the gate of every search")
    rule = Rule(n_start=flags.n_start, beta_scale=flags.beta_scale, seed=flags.seed)
    regret = measure_regret(truths, rule, flags.trainings, flags.searches)
    console = make_console()
    console.print(
        f"best of {regret.n_known} orders: {order_name(regret.best)}, {regret.best_score:.2f} ± {regret.error:.2f}; "
        f"a score is seen with a deviation of {regret.noise:.2f}",
        soft_wrap=True,
    )
    console.print(table(regret))
    console.print(
        "found after: median trainings until an order within the error of the best was tried. looks best after: until "
        "one stays the best seen. gap: of what looks best at the end to the best; regret: of all orders tried, means ± "
        "standard error.",
        style="dim",
        soft_wrap=True,
    )
    save_json(flags.json, to_json(regret))
    if flags.plot is not None:
        draw(regret, flags.plot)
    return 0
