"""The challenge's evaluation: a policy against each red agent over 30, 50 and 100 steps, with intervals."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ray_rl.collect.api import Collector
from ray_rl.collect.factory import make_collector
from ray_rl.config import CollectConfig, EnvConfig, RuleSet, UserError, describe
from ray_rl.envs.registry import make_env
from ray_rl.episodes import PROTOCOL_STEPS, RED_AGENTS, episode_requests
from ray_rl.evaluate.policies import TrainedPolicy, load_policy
from ray_rl.seeding import Purpose
from ray_rl.storage import Location

_CONFIDENCE_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class CellScore:
    """Score of one cell of the table.

    Attributes:
        red_agent: The attacker.
        steps: Steps per episode.
        n_episodes: Episodes played.
        mean: Mean return.
        half_width: Half the width of its 95 % interval (normal approximation).
        compliance: Mean compliance with the order of repair; None for policies that follow none.
    """

    red_agent: str
    steps: int
    n_episodes: int
    mean: float
    half_width: float
    compliance: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """A policy's scores, with all that is needed to compare and reproduce them.

    Attributes:
        checkpoint: Folder of the policy.
        trained_on: What the policy was trained on (`EnvSpec.name`).
        made_by: How it was trained, in words; empty where nobody said.
        environment: What it was evaluated on (`EnvSpec.name`), rule set included.
        rules: The rule set.
        greedy: Whether the likeliest action was taken, or a sampled one.
        seed: Seed of the evaluation.
        purpose: ``evaluate`` for the protocol's own seeds, ``validate`` for those that choose between policies.
        cells: One score per attacker and length.
        total: Sum of the cells' means.
        total_half_width: Half the width of its 95 % interval.
    """

    checkpoint: str
    trained_on: str
    made_by: str
    environment: str
    rules: RuleSet
    greedy: bool
    seed: int
    purpose: str
    cells: tuple[CellScore, ...]
    total: float
    total_half_width: float

    @property
    def sees_raw_events(self) -> bool:
        """Whether the policy sees more than the table: such scores stand apart."""
        return "view=raw" in self.environment

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def evaluate_checkpoint(
    path: Location,
    *,
    n_episodes: int,
    greedy: bool,
    seed: int,
    collect: CollectConfig,
    rules: RuleSet | None = None,
    cyborg_path: str | None = None,
    in_cyborg: bool = False,
    purpose: Purpose = Purpose.EVALUATE,
    steps: tuple[int, ...] = PROTOCOL_STEPS,
    red_agents: tuple[str, ...] = RED_AGENTS,
    workflow: str | None = None,
) -> Scores:
    """Play a trained policy by the protocol.

    Args:
        path: Whatever `load_policy` reads.
        n_episodes: Episodes per cell.
        greedy: Take the likeliest action instead of a sampled one.
        seed: Seed of the evaluation; training never uses the episodes it gives, whatever its own seed.
        collect: Where the episodes run.
        rules: Rule set to play; default: the one it was trained on.
        cyborg_path: Folder of a CybORG 2.1 checkout, for `in_cyborg`; None looks for an importable one.
        in_cyborg: Play in CybORG itself instead of the built-in simulator.
        purpose: ``EVALUATE`` for the protocol's own seeds, ``VALIDATE`` for those that choose between policies.
        steps: Episode lengths.
        red_agents: Attackers.
        workflow: Order of repair to follow, as `EnvConfig.workflow`; None: the one it was trained on, if any.

    Raises:
        UserError: When the policy cannot be read or does not fit the environment.
        EpisodeError: When an episode failed.
    """
    policy = load_policy(path)
    env_config = evaluation_env(policy, rules, in_cyborg, cyborg_path)
    if workflow is not None:
        env_config = with_workflow(policy, env_config, workflow)
    env = make_env(env_config)
    try:
        spec = env.spec
    finally:
        env.close()
    weights = policy.weights
    if (spec.observation_size, spec.n_actions) != (weights.sizes[0], weights.sizes[-1]):
        raise UserError(
            f"{policy.source} has a policy of {weights.sizes[0]} inputs and {weights.sizes[-1]} actions, "
            f"'{spec.name}' has {spec.observation_size} and {spec.n_actions}"
        )
    with make_collector(collect, env_config) as collector:
        collector.publish(weights, policy.update)
        cells = play_cells(
            collector,
            seed=seed,
            n_episodes=n_episodes,
            greedy=greedy,
            steps=steps,
            agents=red_agents,
            purpose=purpose,
            order=env_config.order,
        )
    return Scores(
        checkpoint=str(policy.source),
        trained_on=policy.spec.name,
        made_by=policy.made_by,
        environment=spec.name,
        rules=env_config.rules,
        greedy=greedy,
        seed=seed,
        purpose=purpose.name.lower(),
        cells=cells,
        total=sum(cell.mean for cell in cells),
        total_half_width=math.sqrt(sum(cell.half_width**2 for cell in cells)),
    )


def evaluation_env(policy: TrainedPolicy, rules: RuleSet | None, in_cyborg: bool, cyborg_path: str | None) -> EnvConfig:
    """What a policy is played in: what it was trained on, but for the rule set and CybORG in place of the simulator.

    Raises:
        UserError: When CybORG is asked for and the policy defends something else.
    """
    changes: dict[str, Any] = {} if rules is None else {"rules": rules}
    if in_cyborg:
        if policy.env.env not in ("cage2", "cyborg"):
            raise UserError(f"{policy.source} was trained on {policy.env.env}, which CybORG does not play")
        changes |= {"env": "cyborg", "cyborg_path": cyborg_path}
    return policy.env.model_copy(update=changes)


def with_workflow(policy: TrainedPolicy, env: EnvConfig, workflow: str) -> EnvConfig:
    """The same environment with another order of repair to follow.

    Raises:
        UserError: When the order does not exist, or the policy does not see orders.
    """
    if not policy.spec.follows_order:
        raise UserError(f"{policy.source} was trained without --workflow: it follows no order")
    try:
        return EnvConfig.model_validate(env.model_dump() | {"workflow": workflow})
    except ValidationError as error:
        raise UserError(describe(error)) from error


def play_cells(
    collector: Collector,
    *,
    seed: int,
    n_episodes: int,
    greedy: bool,
    steps: tuple[int, ...],
    agents: tuple[str, ...],
    purpose: Purpose = Purpose.EVALUATE,
    order: int | Literal["random"] | None = None,
) -> tuple[CellScore, ...]:
    """Play every cell with the weights that the collector has, all cells at once.

    Args:
        collector: Runs the episodes; its weights are published already.
        seed: Seed of the evaluation.
        n_episodes: Episodes per cell.
        greedy: Take the likeliest action instead of a sampled one.
        steps: Episode lengths.
        agents: Attackers.
        purpose: Decides which seeds the episodes get.
        order: Order of repair to follow, as in `episode_requests`.

    Returns:
        Scores, attackers within lengths.
    """
    cells = [(length, agent) for length in steps for agent in agents]
    for number, (length, agent) in enumerate(cells):
        collector.submit(
            episode_requests(
                seed,
                number * n_episodes,
                n_episodes,
                red_agent=agent,
                max_steps=length,
                purpose=purpose,
                greedy=greedy,
                order=order,
            )
        )
    returns, compliance = np.full((2, len(cells) * n_episodes), np.nan)
    for chunk in collector.completed():
        returns[chunk.summary.indices] = chunk.summary.returns
        if order is not None:
            compliance[chunk.summary.indices] = chunk.summary.extras["compliance"]
    by_cell = [values.reshape(len(cells), n_episodes) for values in (returns, compliance)]
    return tuple(_cell(agent, length, *values) for (length, agent), *values in zip(cells, *by_cell, strict=True))


def _cell(agent: str, length: int, returns: NDArray[np.float64], compliance: NDArray[np.float64]) -> CellScore:
    n = len(returns)
    deviation = float(returns.std(ddof=1)) if n > 1 else math.nan
    half_width = _CONFIDENCE_95 * deviation / math.sqrt(n)
    followed = None if np.isnan(compliance).any() else float(compliance.mean())
    return CellScore(agent, length, n, float(returns.mean()), half_width, followed)
