"""How soon each method would have found the best order: repeated searches over scores that are known already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ray_rl.config import UserError
from ray_rl.search.gaussian_process import Observations
from ray_rl.search.methods import Method, Rule
from ray_rl.search.report import scores_by_order
from ray_rl.search.simulate import simulate
from ray_rl.search.training import Z_95

COMPARED: tuple[Method, ...] = ("gp-ucb", "ei", "random")
_COLOURS = dict(zip(COMPARED, ("#2f7d4f", "#5b8db8", "#8c8c8c"), strict=True))


@dataclass(frozen=True, slots=True)
class Regret:
    """What repeated searches found.

    Attributes:
        best: The order with the greatest true score.
        best_score: That score.
        error: Error of the best's score: half width of its 95 % interval.
        noise: Standard deviation of one observed score of the best order.
        n_known: Orders with a score.
        paid: By method, [searches, trainings] by how much the true score of each order tried lies below the best; NaN
            where it has none.
        gaps: By method, [searches, trainings] of `ray_rl.search.simulate.Search`.
        found: By method, [searches] trainings until an order within the evaluation error of the best was tried; inf:
            never.
    """

    best: int
    best_score: float
    error: float
    noise: float
    n_known: int
    paid: dict[Method, NDArray[np.float64]]
    gaps: dict[Method, NDArray[np.float64]]
    found: dict[Method, NDArray[np.float64]]

    def recognised(self, method: Method) -> NDArray[np.float64]:
        """Of each search, trainings after which what looks best stays within that error to the end; inf: never."""
        outside = self.gaps[method] > self.error
        n = outside.shape[1]
        last_outside = np.where(outside.any(axis=1), n - np.argmax(outside[:, ::-1], axis=1), 0)
        return np.where(last_outside == n, np.inf, last_outside + 1.0)


def pool(searches: Sequence[Observations]) -> tuple[Observations, float]:
    """What several exhaustive searches with different seeds tell of the true scores.

    Args:
        searches: Their scores.

    Returns:
        Mean scores of the orders that all of them scored, with the variance of a single observation: that of its
        evaluation where there is one search, and with more the variance between them, pooled over the orders, which
        holds the noise of training as well. Second, the number by which to divide that variance for the mean's.
    """
    if len(searches) == 1:
        return searches[0], 1.0
    table = np.stack([scores_by_order(search) for search in searches])
    known = np.flatnonzero(~np.isnan(table).any(axis=0))
    between = float(table[:, known].var(axis=0, ddof=1).mean()) if len(known) else 0.0
    return Observations(known, table[:, known].mean(axis=0), np.full(len(known), between)), float(len(searches))


def measure_regret(truths: Sequence[Observations], rule: Rule, n_trainings: int, n_searches: int) -> Regret:
    """Search many times over known scores.

    Args:
        truths: Scores of one exhaustive search or more; at least one order is in all of them.
        rule: How to choose; its method is replaced by each of `COMPARED`, search r has its seed + r.
        n_trainings: Trainings of each search.
        n_searches: Searches of each method.
    """
    truth, n_pooled = pool(truths)
    scores = scores_by_order(truth)
    noise = np.zeros(len(scores))
    noise[truth.orders] = np.sqrt(truth.variances)
    best = int(np.nanargmax(scores))
    error = Z_95 * float(noise[best]) / math.sqrt(n_pooled)
    good = scores >= scores[best] - error
    paid: dict[Method, NDArray[np.float64]] = {}
    gaps: dict[Method, NDArray[np.float64]] = {}
    found: dict[Method, NDArray[np.float64]] = {}
    for method in COMPARED:
        rules = [replace(rule, method=method, seed=rule.seed + r) for r in range(n_searches)]
        searches = [simulate(scores, noise, own, n_trainings) for own in rules]
        paid[method] = np.stack([scores[best] - scores[search.tried] for search in searches])
        gaps[method] = np.stack([search.gaps for search in searches])
        hits = np.stack([good[search.tried] for search in searches])
        found[method] = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
    return Regret(best, float(scores[best]), error, float(noise[best]), len(truth.orders), paid, gaps, found)


def to_json(regret: Regret) -> dict[str, Any]:
    """Everything as plain JSON values; searches that never came near are null."""
    return {
        "best_order": regret.best,
        "best_score": regret.best_score,
        "error_of_best": regret.error,
        "noise_of_a_score": regret.noise,
        "orders_with_a_score": regret.n_known,
        "methods": {
            method: {
                "found_after": _finite(regret.found[method]),
                "recognised_after": _finite(regret.recognised(method)),
                "mean_regret_per_training": np.nanmean(regret.paid[method], axis=1).tolist(),
                "median_gap": np.median(gaps, axis=0).tolist(),
                "gaps": gaps.tolist(),
            }
            for method, gaps in regret.gaps.items()
        },
    }


def table(regret: Regret) -> Table:
    """One row per method.

    Gap: by how much the order that looks best lies below the best. Regret: the mean of that over all orders tried.
    """
    shown = Table()
    shown.add_column("method")
    names = ("found after", "quartiles", "searches that find it", "looks best after", "gap at the end", "regret")
    for name in names:
        shown.add_column(name, justify="right")
    for method, gaps in regret.gaps.items():
        found = regret.found[method]
        low, median, high = np.quantile(found, (0.25, 0.5, 0.75), method="inverted_cdf")
        recognised = np.quantile(regret.recognised(method), 0.5, method="inverted_cdf")
        shown.add_row(
            method,
            f"{median:g} trainings",
            f"{low:g}-{high:g}",
            f"{np.isfinite(found).sum()} of {len(found)}",
            f"{recognised:g} trainings",
            _mean_in_words(gaps[:, -1]),
            _mean_in_words(np.nanmean(regret.paid[method], axis=1)),
        )
    return shown


def _mean_in_words(values: NDArray[np.float64]) -> str:
    """Mean over the searches ± its standard error."""
    if len(values) < 2:
        return f"{values.mean():.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}"


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def draw(regret: Regret, path: Path) -> None:
    """Draw the median gap over the trainings, with its quartiles.

    Args:
        regret: What to draw.
        path: Picture to write; its ending decides the format.

    Raises:
        UserError: When it cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for method, gaps in regret.gaps.items():
        x = np.arange(1, gaps.shape[1] + 1)
        low, median, high = np.quantile(gaps, (0.25, 0.5, 0.75), axis=0)
        axes.step(x, median, where="post", color=_COLOURS[method], label=method)
        axes.fill_between(x, low, high, step="post", color=_COLOURS[method], alpha=0.15)
    axes.axhline(regret.error, color="#333333", linewidth=0.8, linestyle=":")
    axes.annotate(
        "error of the best's score",
        (1, regret.error),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color="#333333",
    )
    axes.set_xlabel("trainings")
    axes.set_ylabel("mean return below the best order's")
    axes.set_ylim(bottom=0)
    searches = len(next(iter(regret.gaps.values())))
    axes.set_title(
        f"The order that looks best so far: median and quartiles of {searches} searches", loc="left", size=11
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write --plot {path}: {error}") from error
    finally:
        plt.close(figure)
