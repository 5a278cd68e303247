"""A search as a picture: what it believes of every order, what it saw, and the truth where that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ray_rl.config import UserError
from ray_rl.search.gaussian_process import Observations
from ray_rl.search.report import met_gate, scores_by_order
from ray_rl.search.study import SearchResult
from ray_rl.search.training import Z_95


def draw(result: SearchResult, truth: Observations | None, path: Path) -> None:
    """Draw the posterior over all orders, sorted by truth or else by posterior mean; nothing without a posterior.

    Args:
        result: The search.
        truth: Scores of an exhaustive search, if there is one.
        path: Picture to write; its ending decides the format.

    Raises:
        UserError: When it cannot be written.
    """
    if result.belief is None:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    hyper, belief = result.belief
    true_scores = None if truth is None else scores_by_order(truth)
    key = belief.mean if true_scores is None else np.where(np.isnan(true_scores), belief.mean, true_scores)
    ranking = np.argsort(-key, kind="stable")
    place = np.argsort(ranking)
    x = np.arange(len(ranking))
    mean, margin = belief.mean[ranking], Z_95 * belief.deviation[ranking]
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    axes.fill_between(x, mean - margin, mean + margin, color="#5b8db8", alpha=0.2, label="posterior, 95 %")
    axes.plot(x, mean, color="#5b8db8")
    if true_scores is not None:
        axes.plot(x, true_scores[ranking], ".", color="#333333", markersize=4, label="truth")
    seen = result.history.succeeded()
    for counts, colour, label in ((True, "#2f7d4f", "trained"), (False, "#d9844a", "trained, below the gate")):
        points = [o for o in seen if met_gate(o, result) is counts]
        if points:
            axes.errorbar(
                [place[o.order] for o in points],
                [o.score for o in points],
                yerr=[Z_95 * o.standard_error for o in points],
                fmt="o",
                markersize=4,
                color=colour,
                label=label,
            )
    axes.set_xlabel(f"orders, best first by {'posterior' if true_scores is None else 'truth'}")
    axes.set_ylabel("mean return")
    axes.set_title(
        f"{result.config.search.method}: {len(seen)} orders trained, kernel decay {hyper.decay:.2f} per swapped pair",
        loc="left",
        fontsize=11,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}") from error
    finally:
        plt.close(figure)
