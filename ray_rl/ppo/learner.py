"""The learner: one update of actor and critic from complete episodes.

It computes in threads of its own, which treat denormal numbers as 0; the thread that calls is left as it is. Given two
threads, the critic trains beside the actor, and the old policy is asked there. The two share nothing, so one thread or
two give the same bits.

On a GPU one thread hands out the work; values come to the host for the advantages, statistics once per update.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_rl.config import PolicyConfig, Precision
from ray_rl.envs.api import EnvSpec
from ray_rl.envs.masks import restore_masks
from ray_rl.envs.true_state import spec_with_true_state, with_true_state
from ray_rl.episodes import EpisodeBatch, concatenate_in_order, protocol_weights
from ray_rl.policy.actor_critic import ActorCritic
from ray_rl.policy.inference import PolicyWeights
from ray_rl.policy.recurrent import RecurrentActorCritic
from ray_rl.ppo import epochs, sequence_epochs
from ray_rl.ppo.adam import Adam
from ray_rl.ppo.api import Assignment, DivergedError, LearnerState, PolicyMismatchError, UpdateStats
from ray_rl.ppo.batch import Part, Place, PpoBatch, ppo_batch, split
from ray_rl.ppo.device import CPU, learner_device, onto
from ray_rl.ppo.epochs import ActorReport, CriticReport
from ray_rl.ppo.gae import generalised_advantages
from ray_rl.ppo.loss import explained_variance
from ray_rl.ppo.old_policy import OldPolicy
from ray_rl.ppo.return_scale import ReturnScale, rescale_critic
from ray_rl.ppo.sequences import Sequences, sequences
from ray_rl.ppo.shuffle import Shuffle
from ray_rl.ppo.team import ALONE, Team
from ray_rl.seeding import Purpose, derive_seed
from ray_rl.spans import Spans

LOG_PROB_TOLERANCE: dict[Precision, float] = {"full": 1e-3, "mixed": 0.5}
"""How far a recorded log-probability may lie from the learner's own evaluation of it. Both are float32 sums, in
different order; they differ by 1e-6 or so, and by a few hundredths where the learner rounds what it multiplies."""

_ADVANTAGE_EPSILON = 1e-8
_MOST_CORRECTION = 2.0
"""How often the advantage of a stale step may count: bounds the noise of what the policy that acted hardly ever did."""
_AGREED = (PolicyMismatchError, ValueError, DivergedError)
"""Errors that all learners of a team raise alike, and therefore stay together."""


class Learner:
    """Learns a policy by PPO.

    Args:
        assignment: What to learn, and how.
        team: Channels to the learners that share the batches; all of them have the same assignment.
        dtype: Of networks and gradients.
        device: Where to compute; None: where the assignment says.

    Raises:
        UserError: When the device is not there.
    """

    def __init__(
        self,
        assignment: Assignment,
        team: Team = ALONE,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        spec, policy, ppo = assignment.spec, assignment.policy, assignment.ppo
        self._spec = spec
        self._true_state = assignment.true_state
        self._critic_spec = spec if self._true_state is None else spec_with_true_state(spec)
        self._config = ppo
        self._n_updates = assignment.n_updates
        self._run_seed = assignment.run_seed
        self._version = 0
        self._scale = ReturnScale()
        self._team = team
        self._dtype = dtype
        self._device = device or learner_device(ppo.learner_device)
        # On the CPU equal steps share their work; where the caller names a device it is done as on a GPU, for each.
        self._shares = device is None and self._device == CPU
        n_threads = min(ppo.learner_threads, 2) if self._device == CPU else 1
        self._threads = ThreadPoolExecutor(n_threads, "learner", _prepare_thread, (max(ppo.learner_threads // 2, 1),))
        self._remembers = policy.policy == "gru"
        if self._remembers and team is not ALONE:
            raise ValueError("learners that share a batch cut it by steps; policy gru learns from whole episodes")
        self._passes = sequence_epochs if self._remembers else epochs
        self._networks = self._threads.submit(self._make_networks, policy).result()
        self._old_actor = self._threads.submit(self._make_networks, policy).result().actor
        self._actor_optimiser = Adam.fresh(self._networks.actor.parameters)
        self._critic_optimiser = Adam.fresh(self._networks.critic.parameters)

    def _make_networks(self, policy: PolicyConfig) -> ActorCritic | RecurrentActorCritic:
        seed = derive_seed(self._run_seed, Purpose.WEIGHTS)
        sizes = (self._spec.observation_size, self._spec.n_actions)
        critic_size = self._critic_spec.observation_size
        if self._remembers:
            return RecurrentActorCritic(
                *sizes, policy.memory_size, policy.hidden_sizes, seed, critic_size, self._device
            )
        factors = torch.bfloat16 if self._config.learner_precision == "mixed" else None
        return ActorCritic(*sizes, policy.hidden_sizes, seed, self._dtype, critic_size, self._device, factors)

    @property
    def version(self) -> int:
        """Number of finished updates."""
        return self._version

    def weights(self) -> PolicyWeights:
        """The policy, for acting; a copy."""
        return self._networks.actor_weights()

    def close(self) -> None:
        """End the threads and leave the team; safe to call twice."""
        self._threads.shutdown()
        self._team.close()

    def update(self, batches: Sequence[EpisodeBatch]) -> UpdateStats:
        """Learn from complete episodes; when that fails, the learner stays as it was.

        Args:
            batches: The episodes of one update, in any order.

        Raises:
            PolicyMismatchError: When recorded log-probabilities are not those of the weights said to have acted.
            ValueError: When the episodes do not fit the environment, claim a policy that does not exist yet, or one of
                them is there twice.
            DivergedError: When the networks diverged to numbers that are not finite.
        """
        started, spans = time.perf_counter(), Spans("learner")
        with spans("join"):
            (part,) = split(concatenate_in_order(batches), 1)
        stats = self.update_part(part, time.perf_counter() - started)
        return replace(stats, spans=spans.taken() + stats.spans)

    def update_part(self, part: Part, joined_s: float = 0.0) -> UpdateStats:
        """Learn from episodes that the learners of a team share; all of them call this with a part of the same update.

        Args:
            part: What this learner has of it.
            joined_s: Seconds that were spent on joining the episodes of the update.

        Returns:
            What there is to say of the whole update. Errors are those of `update`, and `TeamBrokenError`.
        """
        before = self.state()
        try:
            return self._update(part, joined_s)
        except BaseException as error:
            self.load_state(before)
            if not isinstance(error, _AGREED):
                self._team.close()
            raise

    def _update(self, part: Part, joined_s: float) -> UpdateStats:
        started = time.perf_counter() - joined_s
        spans, actor_spans, critic_spans = Spans("learner"), Spans("actor"), Spans("critic")
        with spans("unpack"):
            batch, critic_batch = self._threads.submit(self._unpack, part).result()
        unpacked = time.perf_counter()
        shuffle = self._shuffle(batch)
        critic_shuffle = shuffle if critic_batch is batch else self._shuffle(critic_batch)
        old = OldPolicy(batch.behaviour_log_probs.new_empty(len(batch.behaviour_log_probs)), self._config.minibatches)
        self._old_actor.parameters.copy_(self._networks.actor.parameters)
        learning_rate = self._scheduled(self._config.learning_rate, self._config.final_learning_rate)
        entropy_coefficient = self._scheduled(self._config.entropy_coefficient, self._config.final_entropy_coefficient)
        submit = self._threads.submit
        under_way: list[Future[Any]] = [submit(self._look_back, shuffle, old, critic_spans)]
        try:
            with spans("advantages"):
                values, advantages, returns = submit(self._advantages, critic_batch).result()
            estimated = time.perf_counter()
            under_way += [
                submit(self._train_actor, shuffle, old, advantages, learning_rate, entropy_coefficient, actor_spans),
                submit(self._train_critic, critic_shuffle, values, returns, learning_rate, critic_spans),
            ]
            with spans("epochs"):
                log_prob_difference, actor, (critic, explained) = (job.result() for job in under_way)
        finally:
            wait(under_way)  # what fails leaves nobody at work on networks that are about to be restored
        n_distinct = int(self._team.actor.add_up(torch.tensor(batch.n_distinct)))
        self._check_finite()
        staleness = self._version - part.policy_versions
        self._version += 1
        return UpdateStats(
            policy_loss=actor.policy_loss,
            value_loss=critic.value_loss,
            entropy=actor.entropy,
            approx_kl=actor.approx_kl,
            clip_fraction=actor.clip_fraction,
            explained_variance=explained,
            learning_rate=learning_rate,
            entropy_coefficient=entropy_coefficient,
            actor_gradient_norm=actor.gradient_norm,
            critic_gradient_norm=critic.gradient_norm,
            epochs=actor.epochs,
            first_ratio_deviation=actor.first_ratio_deviation,
            log_prob_difference=log_prob_difference,
            staleness_mean=float(staleness.mean()),
            staleness_max=int(staleness.max()),
            n_steps=part.place.n_steps,
            n_episodes=len(part.indices),
            first_episode=int(part.indices[0]),
            last_episode=int(part.indices[-1]),
            n_distinct=n_distinct,
            unpack_s=unpacked - started,
            advantages_s=estimated - unpacked,
            optimise_s=time.perf_counter() - estimated,
            spans=spans.taken() + actor_spans.taken() + critic_spans.taken(),
        )

    def _unpack(self, part: Part) -> tuple[PpoBatch | Sequences, PpoBatch | Sequences]:
        """What the actor learns from, and what the critic does; the same where both see the same."""
        batch = self._batch(restore_masks(part.episodes), self._spec, part.place)
        newest = int(part.policy_versions.max())
        if newest > self._version:
            raise ValueError(f"an episode claims policy version {newest}, the learner is at {self._version}")
        if self._true_state is None:
            return batch, batch
        return batch, self._batch(with_true_state(part.episodes, self._true_state), self._critic_spec, part.place)

    def _batch(self, episodes: EpisodeBatch, spec: EnvSpec, place: Place) -> PpoBatch | Sequences:
        if self._remembers:
            return sequences(episodes, spec, place, self._device)
        return ppo_batch(episodes, spec, place, self._dtype, None if self._shares else self._device)

    def _shuffle(self, batch: PpoBatch | Sequences) -> Shuffle[Any, Any]:
        return self._passes.shuffle_of(batch, self._config, self._run_seed, self._version)

    def _advantages(self, batch: PpoBatch | Sequences) -> tuple[Tensor, Tensor, Tensor]:
        """Values, advantages (normalised if configured) and returns: [M] each."""
        outputs = self._passes.evaluate_values(self._networks.critic, batch)
        values, final_values = (self._scale.values(part).cpu().numpy() for part in outputs)  # [M], [N]
        rewards, terminated = batch.rewards, batch.terminated
        if self._config.objective == "protocol":  # nothing counts after the last step
            rewards, terminated = rewards * protocol_weights(batch.lengths), np.ones_like(terminated)
        if batch.alignment_rewards is not None:
            rewards = rewards + batch.alignment_rewards
        raw, returns = generalised_advantages(
            rewards,
            values,
            final_values,
            batch.lengths,
            terminated,
            self._config.discount,
            self._config.gae_lambda,
        )
        advantages = torch.from_numpy(raw)
        if self._config.normalise_advantages:
            mean, variance = self._team.actor.moments(advantages, batch.place.n_steps)
            advantages = (advantages - mean) / (math.sqrt(variance) + _ADVANTAGE_EPSILON)
        there = self._device
        return onto(torch.from_numpy(values), there), onto(advantages, there), onto(torch.from_numpy(returns), there)

    def _train_actor(
        self,
        shuffle: Shuffle[Any, Any],
        old: OldPolicy,
        advantages: Tensor,
        learning_rate: float,
        entropy_coefficient: float,
        spans: Spans,
    ) -> ActorReport:
        return self._passes.train_actor(
            self._networks.actor,
            self._actor_optimiser,
            shuffle,
            old,
            advantages,
            self._config,
            learning_rate,
            entropy_coefficient,
            self._team.actor,
            spans,
        )

    def _look_back(self, shuffle: Shuffle[Any, Any], old: OldPolicy, spans: Spans) -> float:
        """Say what ratios are taken against and how often advantages count; returns how far the record is off at most.

        Ratios are taken against the learner's own evaluation of its policy before the update, also for a stale step:
        against the policy that acted, the range of clipping would have to last for all updates since. That a stale step
        was not drawn from the policy before the update is made good by its advantage (Hilton, Cobbe and Schulman 2022,
        "Batch size-invariance for policy optimization", section 3), which counts as often as that policy would have
        drawn it. A step of that policy counts exactly once: acting rounds otherwise than learning, and the difference
        must not pass for a change of the policy.
        """
        batch, channel = shuffle.batch, self._team.critic
        is_fresh = np.repeat(batch.policy_versions == self._version, batch.lengths)
        fresh = onto(torch.from_numpy(is_fresh), self._device)
        try:
            with spans("old log-probabilities"):
                told = self._passes.evaluate_log_probs(self._old_actor, shuffle)
                for number, (steps, log_probs) in enumerate(told):
                    changes = log_probs - batch.behaviour_log_probs.index_select(0, steps)
                    stale_changes = changes.masked_fill_(fresh.index_select(0, steps), 0.0)
                    old.tell(steps, log_probs, stale_changes.exp_().clamp_(max=_MOST_CORRECTION), number)
        except BaseException as error:
            old.fail(error)
            raise
        differences = torch.where(fresh, (old.log_probs - batch.behaviour_log_probs).abs(), 0.0)
        wrong = ~(differences <= LOG_PROB_TOLERANCE[self._config.learner_precision])  # NaN is wrong too
        largest = float(channel.largest(differences.nan_to_num(nan=math.inf).max().cpu()))
        n_wrong, n_fresh = channel.add_up(torch.stack((wrong.sum(), fresh.sum())).cpu()).tolist()
        if n_wrong:
            raise PolicyMismatchError(largest, n_wrong, n_fresh, self._version)
        return largest

    def _train_critic(
        self,
        shuffle: Shuffle[Any, Any],
        values: Tensor,
        returns: Tensor,
        learning_rate: float,
        spans: Spans,
    ) -> tuple[CriticReport, float]:
        """Fit the critic; returns its report and the variance of returns that it explained before."""
        critic, channel, n_steps = self._networks.critic, self._team.critic, shuffle.batch.place.n_steps
        mean, variance = channel.moments(returns, n_steps)
        _, error_variance = channel.moments(returns - values, n_steps)
        if self._config.normalise_returns:
            scale = self._scale.with_batch(mean, variance)
            rescale_critic(critic, self._scale, scale)
            self._scale = scale
        report = self._passes.train_critic(
            critic,
            self._critic_optimiser,
            shuffle,
            self._scale.normalised(values),
            self._scale.normalised(returns),
            self._config,
            learning_rate,
            channel,
            spans,
        )
        return report, explained_variance(error_variance, variance)

    def _scheduled(self, first: float, last: float) -> float:
        """Linear from the first update of the run to the last."""
        share = min(self._version / max(self._n_updates - 1, 1), 1.0)
        return first + (last - first) * share

    def _check_finite(self) -> None:
        for name, network in (("actor", self._networks.actor), ("critic", self._networks.critic)):
            if not bool(torch.isfinite(network.parameters).all()):
                raise DivergedError(
                    f"the {name} diverged in update {self._version + 1}: its weights are no longer finite; "
                    "lower --learning-rate, or look for rewards of extreme size"
                )

    def state(self) -> LearnerState:
        """Everything needed to go on bit for bit; copies."""
        arrays = self._networks.arrays()
        for name, optimiser in self._optimisers().items():
            arrays[f"optimiser.{name}.first_moment"] = optimiser.first_moment.cpu().numpy().copy()
            arrays[f"optimiser.{name}.second_moment"] = optimiser.second_moment.cpu().numpy().copy()
        arrays["returns.moments"] = np.array([self._scale.mean, self._scale.mean_square], dtype=np.float64)
        counters = {f"{name}_steps": optimiser.n_steps for name, optimiser in self._optimisers().items()}
        counters |= {"version": self._version, "return_batches": self._scale.n_batches}
        return LearnerState(arrays, counters)

    def load_state(self, state: LearnerState) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: When an array or counter is missing, unknown or of another shape; names the first.
        """
        own = self.state()
        _check_arrays(state.arrays, own.arrays)
        _check_names("counter", state.counters, own.counters)
        self._networks.load_arrays(state.arrays)
        for name, optimiser in self._optimisers().items():
            optimiser.first_moment.copy_(torch.tensor(state.arrays[f"optimiser.{name}.first_moment"]))
            optimiser.second_moment.copy_(torch.tensor(state.arrays[f"optimiser.{name}.second_moment"]))
            optimiser.n_steps = int(state.counters[f"{name}_steps"])
        mean, mean_square = state.arrays["returns.moments"].tolist()
        self._scale = ReturnScale(mean, mean_square, int(state.counters["return_batches"]))
        self._version = state.version

    def _optimisers(self) -> dict[str, Adam]:
        return {"actor": self._actor_optimiser, "critic": self._critic_optimiser}


def _prepare_thread(cores: int) -> None:
    """Say how many cores a thread may use, and count denormal numbers as 0: they are slow and mean nothing here."""
    torch.set_num_threads(cores)
    torch.set_flush_denormal(True)


def _check_names(what: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name in expected:
        if name not in given:
            raise ValueError(f"{what} {name!r} is missing")
    for name in given:
        if name not in expected:
            raise ValueError(f"{what} {name!r} is unknown to this learner")


def _check_arrays(given: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    _check_names("array", given, expected)
    for name, array in expected.items():
        found = given[name]
        if (found.shape, found.dtype) != (array.shape, array.dtype):
            raise ValueError(
                f"array {name!r} is {found.dtype} of shape {found.shape}, "
                f"this learner needs {array.dtype} of shape {array.shape}"
            )
