"""Learning on a GPU, and in mixed precision: what the CPU learns in float32, and a clear word where there is no GPU.

What a GPU computes, each step by itself, the CPU can compute as well: most of it is tested there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from made_episodes import IDENTITY, MASKED, identity_episodes, masked_episodes
from numpy.typing import NDArray

from ray_rl.cli import main
from ray_rl.config import PolicyConfig, PpoConfig, TrainConfig, UserError
from ray_rl.envs.api import EnvSpec
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.true_state import TrueState
from ray_rl.episodes import EpisodeBatch, episode_requests
from ray_rl.policy.acting import acting_policy
from ray_rl.policy.inference import PolicyWeights
from ray_rl.ppo.api import Assignment, PolicyMismatchError
from ray_rl.ppo.device import CPU
from ray_rl.ppo.learner import Learner
from ray_rl.ppo.ray_learner import RayLearner
from ray_rl.rollout import run_episodes

has_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and a torch that is built for it")
has_none = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")

MLP = PolicyConfig(hidden_sizes=(16, 16))
GRU = PolicyConfig(policy="gru", memory_size=16, hidden_sizes=(16,))
CAGE2 = Cage2Env("head", "stock", "winner", "compact")
NUMBERS = EnvSpec("numbers", IDENTITY.observation_size, False, IDENTITY.n_actions, False)


def config(**changes: Any) -> PpoConfig:
    return PpoConfig(**{"minibatches": 3, "epochs": 3, "learner_threads": 1} | changes)


def identity(weights: PolicyWeights, version: int) -> EpisodeBatch:
    return identity_episodes(weights, version, 100 * version, 40)


def masked(weights: PolicyWeights, version: int) -> EpisodeBatch:
    return masked_episodes(weights, version, 100 * version, 40)


def numbers(weights: PolicyWeights, version: int) -> EpisodeBatch:
    made = identity(weights, version)

    def as_numbers(bits: NDArray[Any]) -> NDArray[np.float32]:
        return np.unpackbits(bits, axis=1, count=NUMBERS.observation_size).astype(np.float32)

    return replace(
        made,
        observations=as_numbers(made.observations),
        final_observations=as_numbers(made.final_observations),
    )


def cage2(weights: PolicyWeights, version: int) -> EpisodeBatch:
    requests = episode_requests(0, 40 * version, 40, red_agent="mixed", max_steps=30)
    return run_episodes(CAGE2, acting_policy(weights), requests, version)


CASES = {
    "bits": (Assignment(IDENTITY, MLP, config(), 10, 0), identity),
    "bits and masks": (Assignment(MASKED, MLP, config(), 10, 0), masked),
    "numbers": (Assignment(NUMBERS, MLP, config(), 10, 0), numbers),
    "a critic that sees the truth": (Assignment(CAGE2.spec, MLP, config(), 10, 0, TrueState("head", "compact")), cage2),
}


def learned(
    name: str, n_updates: int = 3, changes: Mapping[str, Any] | None = None, **where: Any
) -> dict[str, NDArray[Any]]:
    """The state after some updates; each learner learns from the same episodes, those of the first policy."""
    assignment, play = CASES[name]
    assignment = replace(assignment, ppo=config(**(changes or {})))
    with closing(Learner(assignment, **where)) as learner:
        made = play(learner.weights(), 0)
        for _ in range(n_updates):
            learner.update([made])
        return dict(learner.state().arrays)


def assert_close(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_each_step_by_itself_or_equal_ones_together_give_the_same(name: str) -> None:
    together = learned(name, dtype=torch.float64)
    assert_close(learned(name, dtype=torch.float64, device=CPU), together, 1e-9)


def test_each_step_is_a_row_where_they_are_computed_by_themselves() -> None:
    assignment, play = CASES["bits"]
    with closing(Learner(assignment)) as together, closing(Learner(assignment, device=CPU)) as alone:
        made = play(alone.weights(), 0)
        assert alone.update([made]).n_distinct == len(made.actions)
        assert together.update([made]).n_distinct == IDENTITY.observation_size


def test_the_first_ratio_is_exactly_one_there_too() -> None:
    assignment, play = CASES["bits and masks"]
    with closing(Learner(assignment, device=CPU)) as learner:
        for _ in range(3):
            stats = learner.update([play(learner.weights(), learner.version)])
            assert stats.first_ratio_deviation == 0.0
            assert 0 < stats.log_prob_difference < 1e-5


@has_gpu
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_learns_what_the_cpu_learns(name: str) -> None:
    on_gpu = learned(name, changes={"learner_device": "cuda"}, dtype=torch.float64)
    assert_close(on_gpu, learned(name, dtype=torch.float64), 1e-8)


@has_gpu
def test_a_gpu_gives_the_same_bits_every_time() -> None:
    one, two = (learned("bits and masks", 5, {"learner_device": "cuda"}) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


@has_gpu
def test_a_memory_learns_on_a_gpu_what_it_learns_on_the_cpu() -> None:
    def after(device: str) -> dict[str, NDArray[Any]]:
        with closing(Learner(Assignment(CAGE2.spec, GRU, config(learner_device=device), 10, 0))) as learner:
            learner.update([cage2(learner.weights(), 0)])
            return dict(learner.state().arrays)

    assert_close(after("cuda"), after("cpu"), 1e-3)


@has_none
@pytest.mark.parametrize(
    ("collector", "complaint"),
    [("sequential", "finds no GPU here"), ("ray-tasks", "takes a GPU for each learner, and this Ray has 0")],
)
def test_without_a_gpu_training_on_one_is_refused(
    collector: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--collector",
        collector,
        "--n-workers",
        "1",
        "--learner-device",
        "cuda",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    assert main(["train", *words]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert complaint in shown
    assert "--learner-device cpu" in shown


@pytest.fixture
def ray_that_claims_a_gpu() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@has_none
def test_a_node_whose_torch_knows_no_gpu_says_so(ray_that_claims_a_gpu: None) -> None:
    assignment = Assignment(IDENTITY, MLP, config(learner_device="cuda"), 10, 0)
    with RayLearner(assignment) as learner, pytest.raises(UserError, match="finds no GPU here"):
        learner.state()


def test_mixed_precision_learns_nearly_the_same_but_not_the_same() -> None:
    full, mixed = (learned("bits and masks", 1, {"learner_precision": precision}) for precision in ("full", "mixed"))
    assert_close(mixed, full, 0.02)
    assert not np.array_equal(mixed["network.actor.1.weight"], full["network.actor.1.weight"])
    assert {array.dtype for array in mixed.values()} == {array.dtype for array in full.values()}


def test_with_mixed_precision_too_the_first_ratio_is_one_and_other_weights_are_refused() -> None:
    assignment, play = CASES["bits and masks"]
    with closing(Learner(replace(assignment, ppo=config(learner_precision="mixed")))) as learner:
        for _ in range(3):
            made = play(learner.weights(), learner.version)
            stats = learner.update([made])
            assert stats.first_ratio_deviation == 0.0
            assert 1e-5 < stats.log_prob_difference < 0.1
        made = play(learner.weights(), 3)
        with pytest.raises(PolicyMismatchError):
            learner.update([replace(made, behaviour_log_probs=made.behaviour_log_probs - 1)])


def test_a_memory_learns_in_full_precision() -> None:
    with pytest.raises(UserError, match="learner_precision mixed needs policy mlp"):
        TrainConfig.from_mapping({"policy": "gru", "learner_precision": "mixed"}, "test")
