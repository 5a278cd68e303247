"""The passes over a batch: one loop for the actor, one for the critic.

The two networks share nothing, so neither loop reads what the other writes; they may run side by side and give the same
bits as one after the other.

Where several learners share a batch, each computes the gradient of its own steps' mean loss; weighted by its share of
the minibatch and added up, these are the gradient of the whole minibatch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ray_rl.config import PpoConfig
from ray_rl.policy.actor_critic import Mlp
from ray_rl.ppo.adam import Adam, scale_down
from ray_rl.ppo.batch import Minibatch, PpoBatch, minibatches
from ray_rl.ppo.distributions import distributions, logit_gradient
from ray_rl.ppo.loss import approximate_kl, clip_fraction, clipped_surrogate, squared_value_loss
from ray_rl.ppo.old_policy import OldPolicy
from ray_rl.ppo.shuffle import Shuffle
from ray_rl.ppo.team import Channel
from ray_rl.spans import Spans

_ROWS_AT_ONCE = 8192
"""Rows of a pass that is not cut into minibatches; bounds its memory."""
_STEPS_KEPT = 200_000
"""Steps of minibatches that are kept for the slower of both networks, at some 0.3 kB each: all epochs of a small batch,
two of a large one."""
_N_ACTOR_NUMBERS = 4
"""What is reported of a minibatch of the actor."""


@dataclass(frozen=True, slots=True)
class ActorReport:
    """Means over the actor's minibatches; `approx_kl` and `clip_fraction` over those of the last epoch.

    Attributes are named as in `UpdateStats`.
    """

    policy_loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    gradient_norm: float
    epochs: int
    first_ratio_deviation: float


@dataclass(frozen=True, slots=True)
class CriticReport:
    """Means over the critic's minibatches."""

    value_loss: float
    gradient_norm: float


def shuffle_of(batch: PpoBatch, config: PpoConfig, run_seed: int, version: int) -> Shuffle[PpoBatch, Minibatch]:
    """The minibatches of an update.

    Args:
        batch: M steps.
        config: Of the learner.
        run_seed: Seed of the run.
        version: Number of finished updates.
    """

    def cut(epoch: int) -> Iterator[Minibatch]:
        return minibatches(batch, config.minibatches, run_seed, version, epoch)

    return Shuffle(batch, cut, n_kept=max(2, _STEPS_KEPT // batch.n_steps))


def evaluate_log_probs(actor: Mlp, shuffle: Shuffle[PpoBatch, Minibatch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Evaluate log π(a|s) of every step, in the same slices as the first epoch will take.

    A product of matrices may round differently with another number of rows; over the same slices it gives the same
    bits, so that the first ratio of the first epoch is exactly 1.

    Args:
        actor: The policy.
        shuffle: The minibatches of M steps.

    Yields:
        For each minibatch of the first epoch the positions of its steps [m] and their log-probabilities [m].
    """
    for part in shuffle.minibatches(0):
        log_probs = distributions(_logits(actor, part), part.allowed).log_probs
        yield part.steps, log_probs.view(-1).index_select(0, _flat_positions(part, log_probs.shape[1]))


def evaluate_values(critic: Mlp, batch: PpoBatch) -> tuple[Tensor, Tensor]:
    """Outputs of the critic for every step [M] and every final observation [N]."""
    parts = torch.split(torch.arange(len(batch.inputs), device=batch.device), _ROWS_AT_ONCE)
    outputs = torch.cat([critic.forward(batch.inputs.select(rows))[:, 0].clone() for rows in parts])
    outputs = outputs[torch.from_numpy(batch.input_of_row)]
    return outputs[torch.from_numpy(batch.rows)], outputs[torch.from_numpy(batch.final_rows)]


def train_actor(
    actor: Mlp,
    optimiser: Adam,
    shuffle: Shuffle[PpoBatch, Minibatch],
    old: OldPolicy,
    advantages: Tensor,
    config: PpoConfig,
    learning_rate: float,
    entropy_coefficient: float,
    channel: Channel,
    spans: Spans,
) -> ActorReport:
    """Improve the policy by the clipped surrogate objective with an entropy bonus.

    Args:
        actor: The policy, changed in place.
        optimiser: Its optimiser.
        shuffle: The minibatches of M steps.
        old: What ratios are taken against.
        advantages: [M], normalised if at all by the caller.
        config: Of the learner.
        learning_rate: Adam's step size.
        entropy_coefficient: Weight of the entropy bonus.
        channel: To the learners that share the batch.
        spans: Takes what is done.
    """
    history: list[tuple[Tensor, ...]] = []
    norms = []
    epochs = 0
    deviation = torch.zeros(1)
    for epoch in range(config.epochs):
        # How far the policy moved is told of the last epoch, which any may turn out to be where a target ends them.
        may_be_last = config.target_kl is not None or epoch == config.epochs - 1
        for number, part in enumerate(spans.each("minibatches", shuffle.minibatches(epoch))):
            if epoch == 0:
                with spans("old log-probabilities"):
                    old.wait(number)
            if len(part.steps):
                numbers, log_ratios = _actor_gradients(
                    actor, part, old, advantages, config.clip_range, entropy_coefficient, may_be_last, spans
                )
                if not history:
                    deviation[0] = log_ratios.expm1().abs().max()
                history.append(tuple(number.mul(part.share) for number in numbers))
            else:
                actor.gradients.zero_()
                history.append((actor.gradients.new_zeros(()),) * _N_ACTOR_NUMBERS)
            with spans("optimiser"):
                channel.add_up(actor.gradients.mul_(part.share))
                norms.append(scale_down(actor.gradients, config.max_gradient_norm))
                optimiser.step(actor.parameters, actor.gradients, learning_rate)
        epochs += 1
        if config.target_kl is not None:
            last_epoch = torch.stack([step[2] for step in history[-config.minibatches :]])
            if float(channel.add_up(last_epoch.mean().cpu())) > config.target_kl:
                break
    table = channel.add_up(_table(history))
    means = table.mean(0).tolist()
    last_means = table[-config.minibatches :].mean(0).tolist()
    return ActorReport(
        policy_loss=means[0],
        entropy=means[1],
        approx_kl=last_means[2],
        clip_fraction=last_means[3],
        gradient_norm=float(torch.stack(norms).double().mean()),
        epochs=epochs,
        first_ratio_deviation=float(channel.largest(deviation)),
    )


def _actor_gradients(
    actor: Mlp,
    part: Minibatch,
    old: OldPolicy,
    advantages: Tensor,
    clip_range: float,
    entropy_coefficient: float,
    tells_change: bool,
    spans: Spans,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Fill the actor's gradients from one minibatch; returns (policy loss, entropy, KL, clip fraction) and log-ratios.

    All are means over the steps that are there; the log-ratios are [m]. KL and clip fraction are 0 unless asked for.
    """
    with spans("forward"):
        found = distributions(_logits(actor, part), part.allowed)
    positions = _flat_positions(part, found.probs.shape[1])  # [m]
    log_ratios = found.log_probs.view(-1).index_select(0, positions).sub_(old.log_probs.index_select(0, part.steps))
    weights = advantages.index_select(0, part.steps).mul_(old.corrections.index_select(0, part.steps))
    loss, gradient = clipped_surrogate(log_ratios, weights, clip_range)  # scalar, [m]
    entropy = torch.dot(part.row_shares, found.entropies)
    row_gradients = torch.zeros_like(part.row_shares).index_add_(0, part.row_of_step, gradient)
    by_logits = logit_gradient(found, part.row_shares * entropy_coefficient, row_gradients)  # [r, A]
    by_logits.view(-1).index_add_(0, positions, gradient)
    with spans("backward"):
        actor.backward(_of_inputs(part, by_logits))
    change = (loss.new_zeros(()),) * 2
    if tells_change:
        change = approximate_kl(log_ratios), clip_fraction(log_ratios, clip_range)
    return (loss, entropy, *change), log_ratios


def train_critic(
    critic: Mlp,
    optimiser: Adam,
    shuffle: Shuffle[PpoBatch, Minibatch],
    old_outputs: Tensor,
    targets: Tensor,
    config: PpoConfig,
    learning_rate: float,
    channel: Channel,
    spans: Spans,
) -> CriticReport:
    """Fit the critic to the returns.

    Args:
        critic: The network, changed in place.
        optimiser: Its optimiser.
        shuffle: The minibatches of M steps.
        old_outputs: [M] the critic's outputs before the update.
        targets: [M] returns, in the units of the critic's outputs.
        config: Of the learner.
        learning_rate: Adam's step size.
        channel: To the learners that share the batch.
        spans: Takes what is done.
    """
    losses: list[tuple[Tensor, ...]] = []
    norms = []
    for epoch in range(config.epochs):
        for part in spans.each("minibatches", shuffle.minibatches(epoch)):
            if len(part.steps):
                loss = _critic_gradients(critic, part, old_outputs, targets, config, spans)
                losses.append((loss.mul(part.share),))
            else:
                critic.gradients.zero_()
                losses.append((critic.gradients.new_zeros(()),))
            with spans("optimiser"):
                channel.add_up(critic.gradients.mul_(part.share))
                norms.append(scale_down(critic.gradients, config.max_gradient_norm))
                optimiser.step(critic.parameters, critic.gradients, learning_rate)
    value_loss = float(channel.add_up(_table(losses)).mean())
    return CriticReport(value_loss, float(torch.stack(norms).double().mean()))


def _critic_gradients(
    critic: Mlp,
    part: Minibatch,
    old_outputs: Tensor,
    targets: Tensor,
    config: PpoConfig,
    spans: Spans,
) -> Tensor:
    """Fill the critic's gradients from one minibatch; returns the mean loss over the steps that are there."""
    with spans("forward"):
        outputs = critic.forward(part.inputs)[:, 0]  # [q]
    loss, gradient = squared_value_loss(
        outputs.index_select(0, part.input_of_step),  # [m]
        old_outputs.index_select(0, part.steps),
        targets.index_select(0, part.steps),
        config.value_clip_range,
    )
    gradient.mul_(config.value_coefficient)
    input_gradients = gradient.new_zeros(len(part.inputs)).index_add_(0, part.input_of_step, gradient)
    with spans("backward"):
        critic.backward(input_gradients[:, None])
    return loss


def _table(rows: list[tuple[Tensor, ...]]) -> Tensor:
    """Scalars as a table of float64, on the host."""
    return torch.stack([torch.stack(row) for row in rows]).cpu().double()


def _logits(actor: Mlp, part: Minibatch) -> Tensor:
    """What the actor says of each row of a minibatch, whatever its mask: [r, A]."""
    logits = actor.forward(part.inputs)  # [q, A]
    return logits if len(part.inputs) == len(part.row_shares) else logits.index_select(0, part.input_of_row)


def _flat_positions(part: Minibatch, n_actions: int) -> Tensor:
    """Where in a flattened [r, A] the action of each step lies: [m]."""
    return part.row_of_step * n_actions + part.actions


def _of_inputs(part: Minibatch, row_gradients: Tensor) -> Tensor:
    """Add up the gradients of the rows [r, A] that share an input: [q, A]."""
    if len(part.inputs) == len(part.row_shares):
        return row_gradients
    sums = row_gradients.new_zeros(len(part.inputs), row_gradients.shape[1])
    return sums.index_add_(0, part.input_of_row, row_gradients)
