"""The configuration of a search: that of its trainings, and how to choose among the orders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tyro
from pydantic import Field, model_validator

from ray_rl.config import (
    CollectConfig,
    Count,
    EnvConfig,
    EvaluateConfig,
    GateConfig,
    PositiveFloat,
    PositiveInt,
    PpoConfig,
    RunConfig,
    TrainConfig,
    _Group,
)
from ray_rl.search.methods import Method, Rule
from ray_rl.workflow.orders import N_ORDERS, ORDERS, RANDOM_ORDER, order_name

WarmStart = Literal["scratch", "nearest", "policy"]
_COLLECTORS = ("ray-tasks", "sequential")
_BUDGET = 100_000
"""Training episodes of a search that chooses, where nobody says how many."""


class SearchConfig(_Group):
    """Search for the best order of repair."""

    method: Method = "gp-ucb"
    """gp-ucb, ei (expected improvement), random, or exhaustive: all orders one after another."""
    budget_episodes: PositiveInt | None = None
    """Training episodes of the whole search; a training starts only if its cap, total_episodes, still fits. None:
    100,000, and for exhaustive as many as all orders take."""
    max_orders: PositiveInt = N_ORDERS
    """Trainings of the whole search, at most."""
    parallel: PositiveInt = 1
    """Orders trained at once, each with a learner of its own, sharing the workers evenly."""
    warm_start: WarmStart = "scratch"
    """What a training starts from: scratch, nearest (the trained order at the least Kendall distance), or policy (the
    one in start_from, trained with --workflow random)."""
    n_start: Count = 5
    """Orders that gp-ucb and ei spread out before they look at scores."""
    beta_scale: PositiveFloat = 0.2
    """Factor of β_t = 2 log(120 t² π² / 6δ), the weight of doubt in gp-ucb."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """δ, chance that the bound behind β_t may fail."""
    truth: Path | None = None
    """JSON of an exhaustive search, drawn and tabled beside what this one believes."""
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None
    """File for everything that the search found, as JSON; search.json in its folder holds the same."""


class SearchRun(TrainConfig):
    """A search, complete: every training is configured alike but for its order.

    By default every training takes its 100 updates and the gate decides only whether its score counts: a defender that
    may stop as soon as it complies has had less time to learn to defend, which is no merit of its order. Small updates
    and large steps make the most of 2,500 episodes: with 50 updates orders end just below a compliance of 0.9.
    """

    env: EnvConfig = EnvConfig(workflow=RANDOM_ORDER)
    collect: CollectConfig = CollectConfig(collector="sequential")
    ppo: PpoConfig = PpoConfig(episodes_per_update=25, learning_rate=2e-3)
    gate: GateConfig = GateConfig(until_compliance=0.9, gate_after_updates=100)
    evaluate: EvaluateConfig = EvaluateConfig(evaluate_every=1_000_000, evaluate_episodes=500, evaluate_sampled=True)
    run: RunConfig = RunConfig(total_episodes=2_500)
    search: SearchConfig = SearchConfig()

    @model_validator(mode="after")
    def _check_search(self) -> Self:
        if self.env.workflow != RANDOM_ORDER:
            raise ValueError("a search chooses the orders itself: leave workflow out")
        if self.gate.until_compliance is None:
            raise ValueError("a search needs until_compliance: only orders that are followed are compared")
        if self.evaluate.evaluate_every == 0:
            raise ValueError("a search needs the evaluation at a training's end: evaluate_every must not be 0")
        if self.collect.collector not in _COLLECTORS:
            raise ValueError(f"a search collects by {' or '.join(_COLLECTORS)}, not {self.collect.collector}")
        if self.evaluate.evaluate_episodes < 2:
            raise ValueError("a search needs evaluate_episodes of 2 or more: one score alone has no error")
        if self.budget < self.run.total_episodes:
            raise ValueError(
                f"budget_episodes ({self.budget}) is less than one training (total_episodes {self.run.total_episodes})"
            )
        if (self.search.warm_start == "policy") != (self.run.start_from is not None):
            raise ValueError("warm_start policy goes together with start_from")
        return self

    @property
    def budget(self) -> int:
        """Training episodes of the whole search."""
        if self.search.budget_episodes is not None:
            return self.search.budget_episodes
        return N_ORDERS * self.run.total_episodes if self.search.method == "exhaustive" else _BUDGET

    @property
    def rule(self) -> Rule:
        """How the search chooses."""
        s = self.search
        return Rule(s.method, s.n_start, s.beta_scale, s.delta, self.run.seed)

    def training(self, order: int, run_dir: Path, start_from: Path | str | None, n_workers: int | None) -> TrainConfig:
        """The configuration of one order's training.

        Args:
            order: Its index.
            run_dir: Its folder; when that holds the training already, it goes on.
            start_from: Checkpoint to start from, if any.
            n_workers: Its share of the workers.
        """
        groups: dict[str, Any] = {name: getattr(self, name) for name in TrainConfig.model_fields}
        groups["env"] = self.env.model_copy(update={"workflow": order_name(order)})
        groups["collect"] = self.collect.model_copy(update={"n_workers": n_workers, "address": None})
        resume = (run_dir / "config.yaml").exists()
        groups["run"] = self.run.model_copy(
            update={
                "run_dir": str(run_dir),
                "resume": resume,
                "start_from": None if start_from is None else str(start_from),
                "keep_checkpoints": 1,
            }
        )
        return TrainConfig(**groups)


def order_folder(search_dir: Path, order: int) -> Path:
    """The folder of an order's training."""
    return search_dir / "orders" / f"{order:03d}_{'-'.join(str(kind) for kind in ORDERS[order])}"
