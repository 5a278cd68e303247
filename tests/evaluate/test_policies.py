"""Policies by name: checkpoints, saved policies, those that ship; whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ray_rl.config import EnvConfig, UserError
from ray_rl.envs.registry import make_env
from ray_rl.evaluate.policies import TrainedPolicy, load_policy, save_policy
from ray_rl.policy.random_weights import random_weights


@pytest.fixture
def policy() -> TrainedPolicy:
    env = EnvConfig(view="memory")
    spec = make_env(env).spec
    return TrainedPolicy(Path("x"), random_weights(spec.observation_size, (8,), spec.n_actions), env, spec, 7)


def test_a_saved_policy_comes_back_in_half_precision(policy: TrainedPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "saved", "by hand")
    back = load_policy(tmp_path / "saved")
    assert (back.env, back.spec, back.update, back.made_by) == (policy.env, policy.spec, 7, "by hand")
    np.testing.assert_array_equal(back.weights.sizes, policy.weights.sizes)
    np.testing.assert_array_equal(back.weights.values, policy.weights.values.astype(np.float16).astype(np.float32))


def test_a_damaged_policy_is_refused(policy: TrainedPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path, "")
    weights = tmp_path / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(UserError, match="truncated"):
        load_policy(tmp_path)
    about = tmp_path / "policy.json"
    about.write_text(json.dumps(json.loads(about.read_text(encoding="utf-8")) | {"format_version": 9}))
    with pytest.raises(UserError, match="format 9"):
        load_policy(tmp_path)
