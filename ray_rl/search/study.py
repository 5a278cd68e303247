"""A search from start to end: ask for an order, train it, note what came of it, ask again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ray_rl.checkpoint import checkpoints_in, find_checkpoint, load_checkpoint
from ray_rl.config import TrainConfig, UserError
from ray_rl.envs.registry import make_env
from ray_rl.interruption import Interruption
from ray_rl.run_folder import CHECKPOINTS
from ray_rl.search.board import Board
from ray_rl.search.config import SearchRun, order_folder
from ray_rl.search.factory import make_trainings
from ray_rl.search.gaussian_process import DISTANCES, Hyperparameters, Posterior, fit, posterior
from ray_rl.search.journal import History, Journal
from ray_rl.search.methods import propose
from ray_rl.search.training import Z_95, Outcome
from ray_rl.search.trainings import Trainings
from ray_rl.storage import is_remote, location
from ray_rl.workflow.orders import order_name

BEST = "best"
"""Subfolder of the best order's checkpoint."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        config: How it was made.
        path: Its folder.
        history: Orders and outcomes.
        belief: Of all orders, with the hyper-parameters behind it; None while no order met the gate.
        stopped: Whether the user stopped it.
        seconds: Duration of this part of it.
    """

    config: SearchRun
    path: Path
    history: History
    belief: tuple[Hyperparameters, Posterior] | None
    stopped: bool
    seconds: float

    @property
    def threshold(self) -> float:
        """Compliance from which on a score counts."""
        assert self.config.gate.until_compliance is not None
        return self.config.gate.until_compliance


def search(config: SearchRun, say: Callable[[str], None]) -> SearchResult:
    """Search for the order whose defender does best.

    Args:
        config: The search; with `resume` it goes on exactly where it stopped.
        say: Tells whoever watches, line by line.

    Raises:
        UserError: For input that cannot work, before anything is started.
    """
    default = Path("runs") / f"search_{config.search.method}_{time.strftime('%Y%m%d-%H%M%S')}"
    path = location(config.run.run_dir or default)
    if is_remote(path):
        raise UserError(f"--run-dir {path}: a search needs a folder on this machine")
    _check(config)
    started = time.monotonic()
    with Journal.open(config, path) as journal, Interruption() as interruption:
        if not _is_over(config, journal.history):
            with make_trainings(config) as trainings, Board(path) as board:
                _search(config, journal, trainings, board, interruption, say)
        history = journal.history
    observed = history.observations(config.gate.until_compliance or 0.0)
    belief = None
    if len(observed.orders):
        hyper = fit(observed)
        belief = hyper, posterior(observed, hyper)
    result = SearchResult(config, path, history, belief, interruption.requested, time.monotonic() - started)
    _keep_best(result)
    return result


def _check(config: SearchRun) -> None:
    """Find out whether every training could start, before the first does."""
    with closing(make_env(config.env)) as env:
        spec = env.spec
    source = config.run.start_from
    if source is not None:
        checkpoint = load_checkpoint(find_checkpoint(location(source)))
        if not checkpoint.spec.follows_order:
            raise UserError(f"--start-from {source} was trained without --workflow: it follows no order")
        if checkpoint.spec != spec or checkpoint.config.policy != config.policy:
            raise UserError(
                f"--start-from {source} was trained on '{checkpoint.spec.name}' with hidden_sizes "
                f"{checkpoint.config.policy.hidden_sizes}, this search is for '{spec.name}' with "
                f"{config.policy.hidden_sizes}"
            )


def _is_over(config: SearchRun, history: History) -> bool:
    return not history.pending and not _may_start(config, history)


def _may_start(config: SearchRun, history: History) -> bool:
    """Whether another training fits the budget, counting those under way at their cap."""
    cap = config.run.total_episodes
    committed = history.episodes + len(history.pending) * cap
    return committed + cap <= config.budget and len(history.asked) < config.search.max_orders


def _search(
    config: SearchRun,
    journal: Journal,
    trainings: Trainings,
    board: Board,
    interruption: Interruption,
    say: Callable[[str], None],
) -> None:
    history = journal.history
    threshold = config.gate.until_compliance or 0.0
    restarting = history.pending
    running = 0
    while True:
        while running < trainings.n_slots and not interruption.requested:
            if restarting:
                order = restarting.pop(0)
            elif (chosen := _next_order(config, history, threshold)) is not None:
                order = chosen
                journal.ask(order, _nearest(config, history, order))
            else:
                break
            trainings.start(order, partial(_training, config, journal.path, order, history.asked[order]))
            running += 1
        if not running or interruption.requested:
            return
        outcome = trainings.next_outcome()
        running -= 1
        if interruption.requested and outcome.error:
            return  # a training that the user's signal ended has not failed: it is done again
        journal.finish(outcome)
        board.record(outcome, history, threshold)
        say(_line(outcome, history, threshold))


def _next_order(config: SearchRun, history: History, threshold: float) -> int | None:
    if not _may_start(config, history):
        return None
    return propose(config.rule, list(history.asked), history.observations(threshold), history.pending)


def _nearest(config: SearchRun, history: History, order: int) -> int | None:
    """The trained order from which an order starts, the first of those at equal distance."""
    trained = [outcome.order for outcome in history.succeeded()]
    if config.search.warm_start != "nearest" or not trained:
        return None
    return min(trained, key=lambda other: int(DISTANCES[order, other]))


def _training(config: SearchRun, path: Path, order: int, nearest: int | None, n_workers: int | None) -> TrainConfig:
    start_from = config.run.start_from if nearest is None else order_folder(path.resolve(), nearest)
    return config.training(order, order_folder(path, order), start_from, n_workers)


def _keep_best(result: SearchResult) -> None:
    """Copy the best order's last checkpoint to the search's folder."""
    best = result.history.best(result.threshold)
    if best is None:
        return
    saved = checkpoints_in(order_folder(result.path, best.order) / CHECKPOINTS)
    if saved:
        shutil.rmtree(result.path / BEST, ignore_errors=True)
        shutil.copytree(saved[-1], result.path / BEST)


def _line(outcome: Outcome, history: History, threshold: float) -> str:
    number = f"{len(history.outcomes):3d}. {order_name(outcome.order)}"
    if outcome.error:
        return f"{number}: failed: {outcome.error}"
    best = history.best(threshold)
    best_text = "none met the gate yet" if best is None else f"best {best.score:.1f} ({order_name(best.order)})"
    met = "" if outcome.compliance >= threshold else ", below the gate"
    score = f"{outcome.score:.1f} ± {Z_95 * outcome.standard_error:.1f}"
    return (
        f"{number}: {score}, compliance {outcome.compliance:.3f}{met}, "
        f"{outcome.episodes} episodes, {outcome.seconds:.1f} s; {best_text}"
    )
