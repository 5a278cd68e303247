"""The one stepping loop: run whole episodes with one fixed policy version.

Every collector calls `run_episodes`; they differ only in where and when. An episode depends on its request and the
weights alone: its own seed gives the environment's draws and, step by step, the uniform that picks Blue's action.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.api import BatchedEnv, EnvError, EnvSpec, OrderedEnv
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.episodes import EpisodeBatch, EpisodeError, EpisodeRequest, action_dtype, join_arrays, request_extras
from ray_rl.policy.acting import ActingPolicy
from ray_rl.policy.inference import MlpPolicy
from ray_rl.rollout_cage2 import run_cage2_episodes
from ray_rl.seeding import policy_uniforms
from ray_rl.workflow.alignment import NO_FIX
from ray_rl.workflow.reward import reward_alignment


def run_episodes(
    env: BatchedEnv, policy: ActingPolicy, requests: Sequence[EpisodeRequest], policy_version: int
) -> EpisodeBatch:
    """Run the requested episodes to their end.

    The built-in simulator with an MLP runs as one compiled kernel, everything else step by step; the bits are the same.

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
    try:
        if isinstance(env, Cage2Env) and isinstance(policy, MlpPolicy):
            batch = run_cage2_episodes(env, policy, requests, policy_version)
        else:
            batch = step_episodes(env, policy, requests, policy_version)
    except EpisodeError as error:
        raise EpisodeError(error.request, error.cause, error.details, requests) from error
    return replace(batch, rollout_s=time.perf_counter() - started)


def step_episodes(
    env: BatchedEnv, policy: ActingPolicy, requests: Sequence[EpisodeRequest], policy_version: int
) -> EpisodeBatch:
    """Run episodes through `BatchedEnv.step`: what `run_episodes` does wherever no kernel does it all.

    Arguments, result and errors as there.
    """
    groups = [
        _run_group(env, policy, requests[start : start + env.max_batch])
        for start in range(0, len(requests), env.max_batch)
    ]
    steps = _Steps(*(join_arrays(parts) for parts in zip(*(group.steps for group in groups), strict=True)))
    spec = env.spec
    batch = EpisodeBatch(
        observations=_on_the_wire(steps.observations, spec),
        action_masks=None if steps.action_masks is None else np.packbits(steps.action_masks, axis=1),
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
    rule = cast("OrderedEnv", env).alignment if spec.follows_order else None
    return batch if rule is None or steps.verdicts is None else reward_alignment(batch, steps.verdicts, rule)


class _Steps(NamedTuple):
    """What a rollout gathers, episode after episode; fields as in `EpisodeBatch`, bits not yet packed."""

    observations: NDArray[Any]
    action_masks: NDArray[np.bool_] | None
    actions: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    rewards: NDArray[np.float32]
    lengths: NDArray[np.int32]
    terminated: NDArray[np.bool_]
    final_observations: NDArray[Any]
    verdicts: NDArray[np.int8] | None


class _Group(NamedTuple):
    """What episodes stepped together left, and the seconds that environment and policy took for them."""

    steps: _Steps
    env_s: float
    policy_s: float


def _run_group(env: BatchedEnv, policy: ActingPolicy, requests: Sequence[EpisodeRequest]) -> _Group:
    """Step B episodes together; whatever goes wrong names the episode."""
    try:
        return _step_together(env, policy, requests)
    except EnvError as error:
        raise EpisodeError(requests[error.slot], error.cause, traceback.format_exc()) from error
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise EpisodeError(requests[0], cause, traceback.format_exc()) from error


def _step_together(env: BatchedEnv, policy: ActingPolicy, requests: Sequence[EpisodeRequest]) -> _Group:
    """Step B episodes together until all are over; a slot whose episode is over waits for the others.

    Steps of environments that wait are waits and little else, so what needs no step is done before and after the loop.
    Where hundreds of processes share a few cores each finds the caches cold: a ufunc then costs as much as the network.
    """
    spec = env.spec
    n, n_steps = len(requests), max(r.max_steps for r in requests)
    greedy = np.array([r.greedy for r in requests], dtype=np.bool_)
    uniforms = policy_uniforms(np.array([[r.seed] for r in requests], dtype=np.uint64), np.arange(n_steps)).T.copy()
    observations = np.empty((n_steps + 1, n, spec.observation_size), np.uint8 if spec.observation_bits else np.float32)
    masks = np.ones((n_steps if spec.has_action_masks else 1, n, spec.n_actions), dtype=np.bool_)
    actions = np.zeros((n_steps, n), dtype=np.int64)
    log_probs = np.zeros((n_steps, n), dtype=np.float32)
    rewards = np.zeros((n_steps, n), dtype=np.float32)
    running = np.ones(n, dtype=np.bool_)
    verdicts = np.full((n_steps if spec.follows_order else 0, n), NO_FIX, dtype=np.int8)
    lengths = np.zeros(n, dtype=np.int32)
    terminated = np.zeros(n, dtype=np.bool_)

    policy_s = 0.0
    started = time.perf_counter()
    policy.begin(n)
    seen_shape, per_slot = observations.shape[1:], rewards.shape[1:]
    observations[0] = _checked("observations", env.reset(requests), seen_shape)
    for step in range(n_steps):
        if spec.has_action_masks:
            masks[step] = _checked_masks(env.action_masks(), masks[step].shape, running)
        asked = time.perf_counter()
        allowed = masks[step if spec.has_action_masks else 0]
        actions[step], log_probs[step] = policy.act(observations[step], allowed, uniforms[step], greedy)
        policy_s += time.perf_counter() - asked
        result = env.step(actions[step])
        observations[step + 1] = _checked("observations", result.observations, seen_shape)
        rewards[step] = _checked("rewards", result.rewards, per_slot)
        if result.verdicts is not None:
            verdicts[step] = result.verdicts
        if True in result.terminated.tolist() or True in result.truncated.tolist():
            over = result.terminated | result.truncated
            ends = running & over
            lengths[ends] = step + 1
            terminated[ends] = result.terminated[ends]
            running = running & ~over
            if not running.any():
                break
    happened = np.where(running, n_steps, lengths)
    _check_finite("observations", observations, happened + 1)
    _check_finite("rewards", rewards, happened)
    if running.any():
        raise EnvError(int(np.argmax(running)), f"the episode goes on after {n_steps} steps")
    env_s = time.perf_counter() - started - policy_s

    slots, steps = np.repeat(np.arange(n), lengths), np.concatenate([np.arange(length) for length in lengths])
    return _Group(
        _Steps(
            observations[steps, slots],
            masks[steps, slots] if spec.has_action_masks else None,
            actions[steps, slots],
            log_probs[steps, slots],
            rewards[steps, slots],
            lengths,
            terminated,
            observations[lengths, np.arange(n)],
            verdicts[steps, slots] if spec.follows_order else None,
        ),
        env_s,
        policy_s,
    )


def _checked(what: str, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The values as they are, once their shape is right."""
    if values.shape != shape:
        raise EnvError(0, f"{what} have shape {values.shape}, the environment's spec says {shape}")
    return values


def _check_finite(what: str, values: NDArray[Any], counts: NDArray[np.integer[Any]]) -> None:
    """Refuse numbers that are not finite among the first [n] so many of each slot, of [T, n, …] values."""
    if values.dtype.kind != "f":
        return
    wrong = ~np.isfinite(values).reshape(*values.shape[:2], -1).all(axis=2) & (np.arange(len(values))[:, None] < counts)
    if wrong.any():
        raise EnvError(int(np.argwhere(wrong)[0, 1]), f"{what} hold a number that is not finite")


def _checked_masks(
    masks: NDArray[np.bool_] | None, shape: tuple[int, ...], running: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """The masks as they are, once every running slot has an allowed action."""
    if masks is None or np.shape(masks) != shape:
        found = "are missing" if masks is None else f"have shape {np.shape(masks)}"
        raise EnvError(0, f"action masks {found}, the environment's spec says {shape}")
    stuck = running & ~masks.any(axis=1)
    if stuck.any():
        raise EnvError(int(np.argmax(stuck)), "no action is allowed")
    return masks


def _on_the_wire(observations: NDArray[Any], spec: EnvSpec) -> NDArray[Any]:
    return np.packbits(observations, axis=1) if spec.observation_bits else observations
