"""The passes over a batch for networks that remember: as `ray_rl.ppo.epochs`, with minibatches of whole episodes.

Autograd writes the gradients here. They flow back through a whole episode, never beyond its first step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ray_rl.config import PpoConfig
from ray_rl.policy.actor_critic import entropies
from ray_rl.policy.recurrent import RecurrentNetwork
from ray_rl.ppo.adam import Adam, scale_down
from ray_rl.ppo.epochs import ActorReport, CriticReport
from ray_rl.ppo.loss import approximate_kl, clip_fraction, clipped_surrogate, squared_value_loss
from ray_rl.ppo.old_policy import OldPolicy
from ray_rl.ppo.sequences import Sequences, episode_minibatches
from ray_rl.ppo.shuffle import Shuffle
from ray_rl.ppo.team import Channel
from ray_rl.spans import Spans

_EPISODES_AT_ONCE = 64
"""Episodes of a pass that is not cut into minibatches; bounds its memory."""


def shuffle_of(batch: Sequences, config: PpoConfig, run_seed: int, version: int) -> Shuffle[Sequences, Tensor]:
    """The minibatches of an update, as columns; arguments as `ray_rl.ppo.epochs.shuffle_of`."""
    n_episodes, count = len(batch.lengths), config.minibatches

    def cut(epoch: int) -> Iterator[Tensor]:
        return episode_minibatches(n_episodes, count, run_seed, version, epoch)

    return Shuffle(batch, cut, n_kept=config.epochs)


def evaluate_values(critic: RecurrentNetwork, batch: Sequences) -> tuple[Tensor, Tensor]:
    """Outputs of the critic for every step [M] and every final observation [N]."""
    with torch.no_grad():
        parts = torch.split(torch.arange(batch.inputs.shape[1]), _EPISODES_AT_ONCE)
        outputs = torch.cat([critic.forward(_inputs(batch, columns)) for columns in parts], 1).view(-1)
    return outputs[batch.steps], outputs[batch.finals]


def evaluate_log_probs(actor: RecurrentNetwork, shuffle: Shuffle[Sequences, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Evaluate log π(a|s) of every step, by the arithmetic of the first epoch; as `ray_rl.ppo.epochs`."""
    batch = shuffle.batch
    position = torch.full(batch.actions.shape, -1, device=batch.actions.device)  # [T, N] of each step among the M
    position.view(-1)[batch.steps] = torch.arange(len(batch.steps), device=batch.actions.device)
    for columns in shuffle.minibatches(0):
        log_probs = _distributions(actor, batch, columns)[0].detach()
        steps = position[:, columns]
        yield steps[steps >= 0], log_probs[steps >= 0]


def train_actor(
    actor: RecurrentNetwork,
    optimiser: Adam,
    shuffle: Shuffle[Sequences, Tensor],
    old: OldPolicy,
    advantages: Tensor,
    config: PpoConfig,
    learning_rate: float,
    entropy_coefficient: float,
    channel: Channel,
    spans: Spans,
) -> ActorReport:
    """Improve the policy; arguments as `ray_rl.ppo.epochs.train_actor`, `channel` being that of a lone learner."""
    batch = shuffle.batch
    old.wait()
    happened = _happened(batch)
    old_log_probs, weights = batch.padded(old.log_probs), batch.padded(advantages * old.corrections)
    history: list[list[float]] = []
    epochs = 0
    for epoch in range(config.epochs):
        for columns in shuffle.minibatches(epoch):
            chosen, all_entropies = _distributions(actor, batch, columns)  # [T, n] each
            here = happened[:, columns]
            log_ratios = (chosen - old_log_probs[:, columns])[here]
            loss, _ = clipped_surrogate(log_ratios, weights[:, columns][here], config.clip_range)
            entropy = all_entropies[here].mean()
            actor.gradients.zero_()
            (loss - entropy_coefficient * entropy).backward()  # type: ignore[no-untyped-call]
            log_ratios = log_ratios.detach()
            history.append(
                [
                    float(loss.detach()),
                    float(entropy.detach()),
                    float(approximate_kl(log_ratios)),
                    float(clip_fraction(log_ratios, config.clip_range)),
                    float(log_ratios.expm1().abs().max()),
                    float(scale_down(actor.gradients, config.max_gradient_norm)),
                ]
            )
            optimiser.step(actor.parameters, actor.gradients, learning_rate)
        epochs += 1
        last = torch.tensor(history[-config.minibatches :], dtype=torch.float64).mean(0)
        if config.target_kl is not None and float(last[2]) > config.target_kl:
            break
    means = torch.tensor(history, dtype=torch.float64).mean(0).tolist()
    return ActorReport(
        policy_loss=means[0],
        entropy=means[1],
        approx_kl=float(last[2]),
        clip_fraction=float(last[3]),
        gradient_norm=means[5],
        epochs=epochs,
        first_ratio_deviation=history[0][4],
    )


def train_critic(
    critic: RecurrentNetwork,
    optimiser: Adam,
    shuffle: Shuffle[Sequences, Tensor],
    old_outputs: Tensor,
    targets: Tensor,
    config: PpoConfig,
    learning_rate: float,
    channel: Channel,
    spans: Spans,
) -> CriticReport:
    """Fit the critic to the returns; arguments as `ray_rl.ppo.epochs.train_critic`."""
    batch = shuffle.batch
    happened, old, wanted = _happened(batch), batch.padded(old_outputs), batch.padded(targets)
    history = []
    for epoch in range(config.epochs):
        for columns in shuffle.minibatches(epoch):
            outputs = critic.forward(_inputs(batch, columns)[:-1])[:, :, 0]
            here = happened[:, columns]
            loss, _ = squared_value_loss(
                outputs[here], old[:, columns][here], wanted[:, columns][here], config.value_clip_range
            )
            critic.gradients.zero_()
            (config.value_coefficient * loss).backward()  # type: ignore[no-untyped-call]
            history.append([float(loss.detach()), float(scale_down(critic.gradients, config.max_gradient_norm))])
            optimiser.step(critic.parameters, critic.gradients, learning_rate)
    return CriticReport(*torch.tensor(history, dtype=torch.float64).mean(0).tolist())


def _inputs(batch: Sequences, columns: Tensor) -> Tensor:
    """Inputs of some episodes, their final observations last: [T + 1, n, D + A] float32."""
    return batch.inputs[:, columns].float()


def _happened(batch: Sequences) -> Tensor:
    """Where there is a step: [T, N] bool."""
    return batch.padded(torch.ones_like(batch.steps, dtype=torch.bool))


def _distributions(actor: RecurrentNetwork, batch: Sequences, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each action taken, and entropy of the policy there: [T, n] each; autograd follows."""
    logits = actor.forward(_inputs(batch, columns)[:-1])
    if batch.mask_bias is not None:
        logits = logits + batch.mask_bias[:, columns]
    log_probs = torch.log_softmax(logits, 2)
    flat = log_probs.flatten(0, 1)
    chosen = log_probs.gather(2, batch.actions[:, columns, None])[:, :, 0]
    return chosen, entropies(flat, flat.exp()).view(chosen.shape)
