"""``ray-rl orders``: one policy that follows any order beside the specialists, order by order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import UserError

_DESCRIPTION = (
    "Play one policy, trained with --workflow random, on each of the 120 orders of repair, and set score and "
    "compliance beside those of the specialists that ray-rl search --method exhaustive trained."
)


@dataclass(frozen=True)
class OrdersFlags:
    """Flags of ``ray-rl orders``."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, of a checkpoint or of a saved policy."""
    truth: Path
    """JSON of an exhaustive search."""
    episodes: int = 100
    """Episodes of each order."""
    greedy: bool = False
    """Take the likeliest action instead of drawing it from the policy, as the specialists' evaluations do."""
    until_compliance: float = 0.9
    """Compliance from which on an order counts as followed."""
    seed: int = 0
    """Decides the episodes; training never uses them."""
    json: Path | None = None
    """File for what the table shows, as JSON."""


def run(words: list[str]) -> int:
    """Play all orders as the flags say."""
    flags = parse(OrdersFlags, "orders", _DESCRIPTION, words)
    check_files(json=flags.json)
    if flags.episodes < 2 or flags.seed < 0 or not 0 <= flags.until_compliance <= 1:
        raise UserError("--episodes must be 2 or more, --seed 0 or more, --until-compliance 0 to 1")

    from ray_rl.evaluate.policies import load_policy
    from ray_rl.search.specialists import compare_with_specialists, summary, table, to_json

    rows = compare_with_specialists(
        load_policy(flags.checkpoint), flags.truth, n_episodes=flags.episodes, seed=flags.seed, greedy=flags.greedy
    )
    console = make_console()
    console.print(table(rows))
    found = summary(rows, flags.until_compliance)
    line = "{who}: {n:.0f} of {of:.0f} orders followed, mean compliance {c:.3f}, mean score {s:.2f}"
    one = {"n": found["orders_followed"], "of": found["orders"], "c": found["mean_compliance"]}
    console.print(line.format(who="the one policy", s=found["mean_score"], **one), soft_wrap=True)
    if "specialists" in found:
        own = {
            "n": found["specialists_followed"],
            "of": found["specialists"],
            "c": found["specialists_mean_compliance"],
        }
        console.print(line.format(who="specialists", s=found["specialists_mean_score"], **own), soft_wrap=True)
    save_json(flags.json, to_json(rows, flags.until_compliance))
    return 0
