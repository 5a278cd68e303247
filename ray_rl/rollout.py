"""The one stepping loop: run whole episodes with one fixed policy version.

Every collector calls `run_episodes`; they differ only in where and when. An episode depends on its request and the
weights alone: its own seed gives the environment's draws and, step by step, the uniform that picks Blue's action.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.api import BatchedEnv, EnvError, EnvSpec
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.episodes import EpisodeBatch, EpisodeError, EpisodeRequest, action_dtype, request_extras
from ray_rl.policy.inference import MlpPolicy
from ray_rl.rollout_cage2 import run_cage2_episodes
from ray_rl.seeding import policy_uniforms


def run_episodes(
    env: BatchedEnv, policy: MlpPolicy, requests: Sequence[EpisodeRequest], policy_version: int
) -> EpisodeBatch:
    """Run the requested episodes to their end.

    The built-in simulator runs as one compiled kernel, every other environment step by step; the bits are the same.

    Args:
        env: The environment; at most `env.max_batch` episodes are stepped together.
        policy: Picks the actions.
        requests: One or more episodes, all of one purpose.
        policy_version: Number of finished updates behind the policy.

    Returns:
        The episodes in the order of the requests.

    Raises:
        EpisodeError: When the environment raises, or returns a wrong shape or a number that is not finite.
    """
    started = time.perf_counter()
    run = run_cage2_episodes if isinstance(env, Cage2Env) else step_episodes
    batch = run(env, policy, requests, policy_version)  # type: ignore[arg-type]
    return replace(batch, rollout_s=time.perf_counter() - started)


def step_episodes(
    env: BatchedEnv, policy: MlpPolicy, requests: Sequence[EpisodeRequest], policy_version: int
) -> EpisodeBatch:
    """Run episodes through `BatchedEnv.step`: what `run_episodes` does for every environment but the built-in one.

    Arguments, result and errors as there.
    """
    groups = [
        _run_group(env, policy, requests[start : start + env.max_batch])
        for start in range(0, len(requests), env.max_batch)
    ]
    steps = _Steps(*map(np.concatenate, zip(*(group.steps for group in groups), strict=True)))
    spec = env.spec
    return EpisodeBatch(
        observations=_on_the_wire(steps.observations, spec),
        action_masks=np.packbits(steps.action_masks, axis=1) if spec.has_action_masks else None,
        actions=steps.actions.astype(action_dtype(spec.n_actions)),
        behaviour_log_probs=steps.log_probs,
        rewards=steps.rewards,
        lengths=steps.lengths,
        terminated=steps.terminated,
        final_observations=_on_the_wire(steps.final_observations, spec),
        indices=np.array([r.index for r in requests], dtype=np.int64),
        policy_version=policy_version,
        extras=request_extras(requests),
        env_s=sum(group.env_s for group in groups),
        policy_s=sum(group.policy_s for group in groups),
    )


class _Steps(NamedTuple):
    """What a rollout gathers, episode after episode; fields as in `EpisodeBatch`, bits not yet packed."""

    observations: NDArray[Any]
    action_masks: NDArray[np.bool_]
    actions: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    rewards: NDArray[np.float32]
    lengths: NDArray[np.int32]
    terminated: NDArray[np.bool_]
    final_observations: NDArray[Any]


class _Group(NamedTuple):
    """What episodes stepped together left, and the seconds that environment and policy took for them."""

    steps: _Steps
    env_s: float
    policy_s: float


def _run_group(env: BatchedEnv, policy: MlpPolicy, requests: Sequence[EpisodeRequest]) -> _Group:
    """Step B episodes together; whatever goes wrong names the episode."""
    try:
        return _step_together(env, policy, requests)
    except EnvError as error:
        raise EpisodeError(requests[error.slot], error.cause, traceback.format_exc()) from error
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise EpisodeError(requests[0], cause, traceback.format_exc()) from error


def _step_together(env: BatchedEnv, policy: MlpPolicy, requests: Sequence[EpisodeRequest]) -> _Group:
    """Step B episodes together until all are over; a slot whose episode is over waits for the others."""
    spec = env.spec
    n = len(requests)
    seeds = np.array([r.seed for r in requests], dtype=np.uint64)
    greedy = np.array([r.greedy for r in requests], dtype=np.bool_)
    running = np.ones(n, dtype=np.bool_)
    lengths = np.zeros(n, dtype=np.int32)
    terminated = np.zeros(n, dtype=np.bool_)

    policy_s = 0.0
    started = time.perf_counter()
    observations = _checked(env.reset(requests), running, spec)
    final_observations = np.zeros_like(observations)
    history: list[tuple[NDArray[Any], ...]] = []
    while running.any():
        masks = _checked_masks(env, running)
        asked = time.perf_counter()
        actions, log_probs = policy.act(observations, masks, policy_uniforms(seeds, len(history)), greedy)
        policy_s += time.perf_counter() - asked
        result = env.step(actions)
        seen = _checked(result.observations, running, spec)
        history.append((observations, masks, actions, log_probs, _checked_rewards(result.rewards, running)))
        lengths += running
        over = running & (result.terminated | result.truncated)
        final_observations[over] = seen[over]
        terminated[over] = result.terminated[over]
        running = running & ~over
        observations = seen
    env_s = time.perf_counter() - started - policy_s

    taken = np.arange(len(history))[None, :] < lengths[:, None]
    seen, masks, actions, log_probs, rewards = (np.stack(c, axis=1)[taken] for c in zip(*history, strict=True))
    steps = _Steps(seen, masks, actions, log_probs, rewards, lengths, terminated, final_observations)
    return _Group(steps, env_s, policy_s)


def _checked(observations: NDArray[Any], running: NDArray[np.bool_], spec: EnvSpec) -> NDArray[Any]:
    """A copy of the observations, once their shape and values hold what the spec says."""
    expected = (len(running), spec.observation_size)
    if np.shape(observations) != expected:
        raise EnvError(0, f"observations have shape {np.shape(observations)}, the environment's spec says {expected}")
    wrong = running & ~np.isfinite(observations).all(axis=1)
    if wrong.any():
        raise EnvError(int(np.argmax(wrong)), "the observation holds a number that is not finite")
    return np.array(observations, dtype=np.uint8 if spec.observation_bits else np.float32)


def _checked_masks(env: BatchedEnv, running: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The action masks, all True where the environment has none, once every running slot has an allowed action."""
    shape = (len(running), env.spec.n_actions)
    masks = env.action_masks()
    if masks is None:
        return np.ones(shape, dtype=np.bool_)
    if np.shape(masks) != shape:
        raise EnvError(0, f"action masks have shape {np.shape(masks)}, the environment's spec says {shape}")
    stuck = running & ~masks.any(axis=1)
    if stuck.any():
        raise EnvError(int(np.argmax(stuck)), "no action is allowed")
    return np.array(masks)


def _checked_rewards(rewards: NDArray[np.float32], running: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A copy of the rewards, once there is one finite number for every running slot."""
    if np.shape(rewards) != running.shape:
        raise EnvError(0, f"rewards have shape {np.shape(rewards)}, expected {running.shape}")
    wrong = running & ~np.isfinite(rewards)
    if wrong.any():
        raise EnvError(int(np.argmax(wrong)), "the reward is not finite")
    return np.array(rewards, dtype=np.float32)


def _on_the_wire(observations: NDArray[Any], spec: EnvSpec) -> NDArray[Any]:
    return np.packbits(observations, axis=1) if spec.observation_bits else observations
