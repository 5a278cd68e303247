"""A comparison as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_rl.compare.published import PUBLISHED
from ray_rl.compare.report import is_published_setting
from ray_rl.compare.study import METHODS, Comparison, MethodResult, workers_text
from ray_rl.config import UserError

_COLOURS = dict(
    zip(("naive", *METHODS), ("#b5655a", "#8c8c8c", "#d9844a", "#5b8db8", "#9a78b8", "#2f7d4f"), strict=True)
)


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
        _draw_curves(axes, comparison, results)
    else:
        _draw_bars(axes, comparison, results)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{comparison.environment}: episodes per second", loc="left", fontsize=11)
    figure.supxlabel(comparison.machine.describe().splitlines()[0], x=0.01, ha="left", fontsize=7, color="#666666")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write --plot {path}: {error}") from error
    finally:
        plt.close(figure)


def _draw_bars(axes: Any, comparison: Comparison, results: list[MethodResult]) -> None:
    places = range(len(results))
    speeds = [r.episodes_per_s for r in results]
    medians = [s.median for s in speeds]
    spread = [[s.median - s.low for s in speeds], [s.high - s.median for s in speeds]]
    xerr = spread if comparison.study.rounds > 1 else None
    axes.barh(places, medians, xerr=xerr, capsize=3, height=0.6, color=[_COLOURS[r.method] for r in results])
    published = [_published_middle(r) if is_published_setting(comparison.study) else None for r in results]
    shown = [(place, figure) for place, figure in zip(places, published, strict=True) if figure is not None]
    if shown:
        axes.plot(
            [figure for _, figure in shown],
            [place for place, _ in shown],
            linestyle="none",
            marker="D",
            markerfacecolor="white",
            markeredgecolor="black",
            label="published, on CybORG",
        )
    ideal = comparison.ideal_episodes_per_s(comparison.study.n_workers[0])
    if ideal is not None:
        axes.axvline(ideal, color="#444444", linestyle="--", linewidth=1, label="ideal: nobody waits for another")
    for place, result, speed in zip(places, results, speeds, strict=True):
        efficiency = comparison.efficiency(result)
        share = "" if efficiency is None or result.n_workers == 1 else f" ({efficiency:.0%})"
        axes.annotate(
            f"{speed.median:.1f}{share}",
            (max(speed.high, published[place] or 0.0), place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.set_yticks(places, [f"{r.method}\n{workers_text(r.n_workers)}" for r in results])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max([*(s.high for s in speeds), ideal or 0.0]))
    axes.set_xlabel("episodes/s" + (" (share of the ideal)" if ideal is not None else ""))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, -0.35), ncols=2)


def _published_middle(result: MethodResult) -> float | None:
    row = PUBLISHED.get(result.method)
    return None if row is None else sum(row.episodes_per_s) / 2


def _draw_curves(axes: Any, comparison: Comparison, results: list[MethodResult]) -> None:
    for method in _COLOURS:
        points = sorted((r.n_workers, r.episodes_per_s) for r in results if r.method == method)
        if len(points) < 2:
            continue
        counts = [n for n, _ in points]
        medians = [s.median for _, s in points]
        axes.plot(counts, medians, "o-", color=_COLOURS[method], label=method)
        axes.fill_between(
            counts, [s.low for _, s in points], [s.high for _, s in points], color=_COLOURS[method], alpha=0.15
        )
    counts = list(comparison.study.n_workers)
    ideals = [comparison.ideal_episodes_per_s(n) for n in counts]
    if None not in ideals:
        axes.plot(counts, ideals, "--", color="#444444", linewidth=1, label="ideal")
    axes.set_xticks(counts)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("workers")
    axes.set_ylabel("episodes/s")
    axes.legend(frameon=False)
