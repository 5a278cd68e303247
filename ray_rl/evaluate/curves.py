"""Learning curves of trainings: greedy score against episodes and time, as data and as a picture."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray_rl.config import UserError, load_yaml
from ray_rl.storage import Location, is_remote


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One evaluation during a training.

    Attributes:
        run: Name of the run's folder.
        rules: Rule set.
        seed: The run's seed.
        episodes: Episodes trained on so far.
        minutes: Minutes of training so far, evaluation included.
        total: The protocol's total, greedy, on validation seeds.
        half_width: Half the width of its 95 % interval.
    """

    run: str
    rules: str
    seed: int
    episodes: int
    minutes: float
    total: float
    half_width: float


def read_curve(run_dir: Location) -> list[CurvePoint]:
    """Read the evaluations of a run.

    Args:
        run_dir: The run's folder.

    Raises:
        UserError: When it is no run, or none of its evaluations told the protocol's total.
    """
    config = load_yaml(run_dir / "config.yaml")
    try:
        lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {run_dir / 'metrics.jsonl'}: {error}") from error
    points = [
        CurvePoint(
            run=(run_dir if is_remote(run_dir) else run_dir.resolve()).name,
            rules=config.env.rules,
            seed=config.run.seed,
            episodes=int(row["episodes"]),
            minutes=round(row["time_s"] / 60, 3),
            total=round(row["eval/protocol_total"], 3),
            half_width=round(row["eval/protocol_half_width"], 3),
        )
        for row in rows
        if "eval/protocol_total" in row
    ]
    if not points:
        raise UserError(
            f"{run_dir} has no evaluation with the protocol's total: train with --episode-steps 100 and "
            "--evaluate-every above 0"
        )
    return points


def save_data(points: Sequence[CurvePoint], path: Path) -> None:
    """Write points as CSV, one line each, columns named as the attributes of `CurvePoint`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CurvePoint.__slots__)
        writer.writerows([getattr(point, name) for name in CurvePoint.__slots__] for point in points)


def draw(points: Sequence[CurvePoint], path: Path, lowest: float) -> None:
    """Draw the total against minutes and against episodes, a line per run; those that differ by seed share a colour.

    Args:
        points: Of any number of runs.
        path: Picture; its ending decides the format (``.png``, ``.svg``).
        lowest: Totals below this are cut off: the first ones are far down.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    families: dict[tuple[str, str], dict[str, list[CurvePoint]]] = {}
    for point in points:
        families.setdefault(_family(point), {}).setdefault(point.run, []).append(point)
    for number, ((name, rules), runs) in enumerate(families.items()):
        seeds = ", ".join(str(mine[0].seed) for mine in runs.values())
        for mine in runs.values():
            for panel, axis in zip(panels, ("minutes", "episodes"), strict=True):
                panel.errorbar(
                    [getattr(point, axis) for point in mine],
                    [point.total for point in mine],
                    [point.half_width for point in mine],
                    label=f"{name} (rules {rules}, {'seed' if len(runs) == 1 else 'seeds'} {seeds})",
                    color=f"C{number}",
                    linewidth=1.2,
                    elinewidth=0.6,
                )
    for panel, label in zip(panels, ("minutes of training", "episodes"), strict=True):
        panel.set_xlabel(label)
        panel.grid(alpha=0.25)
    highest = max(point.total for point in points)
    panels[0].set_ylim(lowest, highest + 0.05 * (highest - lowest))
    panels[0].set_ylabel("protocol total, greedy, validation seeds")
    lines = dict(zip(*reversed(panels[1].get_legend_handles_labels()), strict=True))
    panels[1].legend(lines.values(), lines.keys(), frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _family(point: CurvePoint) -> tuple[str, str]:
    """What runs that differ by their seed have in common: the name without it, and the rules."""
    return re.sub(rf"[-_]?{point.seed}$", "", point.run) or point.run, point.rules
