"""ONNX files: run by ONNX's own reference, they say what the policy says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ray_rl.config import EnvConfig, UserError
from ray_rl.envs.registry import make_env
from ray_rl.evaluate.onnx_file import ONNX_FILE, export_onnx, load_onnx, make_model
from ray_rl.evaluate.policies import TrainedPolicy
from ray_rl.policy.acting import acting_policy
from ray_rl.policy.inference import PolicyWeights
from ray_rl.policy.random_weights import random_weights
from ray_rl.policy.recurrent import RecurrentActorCritic

onnx = pytest.importorskip("onnx")


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_an_mlp_gives_the_same_probabilities(tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    env = EnvConfig(view="memory")
    spec = make_env(env).spec
    weights = random_weights(spec.observation_size, (16, 12), spec.n_actions)
    export_onnx(TrainedPolicy(Path("x"), weights, env, spec, 3, "made so"), tmp_path, "Total -1.23 ± 0.45")
    model = onnx.load(tmp_path / ONNX_FILE)
    assert model.graph.doc_string == f"{spec.name} made so Total -1.23 ± 0.45"
    bits = np.random.default_rng(0).integers(0, 2, (20, spec.observation_size)).astype(np.float32)
    (logits,) = ReferenceEvaluator(model).run(None, {"observation": bits})
    actions, log_probs = acting_policy(weights).act(bits, None, np.zeros(20), np.ones(20, np.bool_))
    np.testing.assert_array_equal(logits.argmax(axis=1), actions)
    np.testing.assert_allclose(log_softmax(logits).max(axis=1), log_probs, atol=1e-5)


def test_a_gru_gives_the_same_probabilities_along_an_episode() -> None:
    from onnx.reference import ReferenceEvaluator

    made = RecurrentActorCritic(9, 4, 6, (8,), 0).actor_weights()
    rng = np.random.default_rng(1)
    weights = PolicyWeights(made.sizes, rng.normal(0, 0.6, len(made.values)).astype(np.float32))
    session = ReferenceEvaluator(make_model(load_onnx(), weights, ""))
    policy = acting_policy(weights)
    policy.begin(3)
    memory, last = np.zeros((3, 6), np.float32), np.zeros((3, 4), np.float32)
    for _ in range(6):
        bits = rng.integers(0, 2, (3, 9)).astype(np.float32)
        logits, memory = session.run(None, {"observation": bits, "last_action": last, "memory": memory})
        actions, log_probs = policy.act(bits, None, rng.random(3), np.zeros(3, np.bool_))
        np.testing.assert_allclose(log_softmax(logits)[np.arange(3), actions], log_probs, atol=1e-5)
        last = np.eye(4, dtype=np.float32)[actions]


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="pip install"):
        load_onnx()
