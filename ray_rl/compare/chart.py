"""A comparison as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_rl.compare.study import METHODS, Comparison, MethodResult
from ray_rl.config import UserError

_COLOURS = dict(zip(METHODS, ("#8c8c8c", "#d9844a", "#5b8db8", "#9a78b8", "#2f7d4f"), strict=True))


def draw(comparison: Comparison, path: Path) -> None:
    """Draw throughput by method as bars, or over the number of workers as curves.

    Args:
        comparison: What to draw.
        path: Picture to write; its ending decides the format (``.png``).

    Raises:
        UserError: When it cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    results = [r for r in comparison.results if r.runs]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    if len(comparison.study.n_workers) > 1:
        _draw_curves(axes, results)
    else:
        _draw_bars(axes, results)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{comparison.environment}: episodes per second", loc="left", fontsize=11)
    axes.annotate(
        comparison.machine.describe().splitlines()[0], (0, -0.16), xycoords="axes fraction", fontsize=7, color="#666666"
    )
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write --plot {path}: {error}") from error
    finally:
        plt.close(figure)


def _draw_bars(axes: Any, results: list[MethodResult]) -> None:
    names = [f"{r.method}\n{r.n_workers} workers" for r in results]
    speeds = [r.episodes_per_s for r in results]
    medians = [s.median for s in speeds]
    spread = [[s.median - s.low for s in speeds], [s.high - s.median for s in speeds]]
    bars = axes.bar(names, medians, yerr=spread, capsize=3, color=[_COLOURS[r.method] for r in results])
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)


def _draw_curves(axes: Any, results: list[MethodResult]) -> None:
    for method in METHODS:
        points = sorted((r.n_workers, r.episodes_per_s) for r in results if r.method == method)
        if len(points) < 2:
            continue
        counts = [n for n, _ in points]
        medians = [s.median for _, s in points]
        axes.plot(counts, medians, "o-", color=_COLOURS[method], label=method)
        axes.fill_between(
            counts, [s.low for _, s in points], [s.high for _, s in points], color=_COLOURS[method], alpha=0.15
        )
    axes.set_xlabel("workers")
    axes.legend(frameon=False)
