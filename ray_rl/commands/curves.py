"""``ray-rl curves``: how trainings went, as data and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ray_rl.commands.flags import parse, place
from ray_rl.config import UserError
from ray_rl.evaluate.curves import draw, read_curve, save_data


@dataclass(frozen=True)
class CurvesFlags:
    """Flags of ``ray-rl curves``."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URL")]
    """Folders or URLs of runs."""
    data: Path = Path("learning_curves.csv")
    """File for the evaluations of all of them, as CSV."""
    plot: Path = Path("learning_curves.png")
    """Picture of them: the protocol's total against minutes and episodes."""
    lowest: float = -100.0
    """Where the picture cuts totals off, in reward."""


def run(words: list[str]) -> int:
    """Read, save and draw as the flags say; returns the exit code."""
    flags = parse(CurvesFlags, "curves", "Write how trainings went, as data and as a picture.", words)
    if not flags.runs:
        raise UserError("name the folder of at least one run")
    points = [point for run in flags.runs for point in read_curve(place("runs", run))]
    try:
        save_data(points, flags.data)
        draw(points, flags.plot, flags.lowest)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {flags.data} or {flags.plot}: {error}") from error
    print(f"{len(points)} evaluations of {len(flags.runs)} runs: {flags.data}, {flags.plot}")
    return 0
