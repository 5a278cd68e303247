"""Which environment a configuration means, and what is said when there is none."""

from __future__ import annotations

import pytest

from ray_rl.config import EnvConfig, UserError
from ray_rl.envs.cage2.env import Cage2Env
from ray_rl.envs.gymnasium_env import GymnasiumEnv
from ray_rl.envs.latency_env import LatencyEnv
from ray_rl.envs.registry import env_of_this_process, make_env


def test_names_lead_to_their_environments() -> None:
    assert isinstance(make_env(EnvConfig()), Cage2Env)
    assert isinstance(make_env(EnvConfig(env="latency")), LatencyEnv)
    assert isinstance(make_env(EnvConfig(env="CartPole-v1")), GymnasiumEnv)


def test_options_of_the_simulator_reach_it() -> None:
    sizes = {
        (view, actions): make_env(EnvConfig(view=view, actions=actions)).spec
        for view in ("table", "memory")
        for actions in ("all", "compact")
    }
    assert sizes["table", "all"].n_actions == 145
    assert sizes["table", "compact"].n_actions < 145
    assert sizes["table", "all"].observation_size == 52
    assert sizes["memory", "all"].observation_size > 52
    names = {
        make_env(EnvConfig(rules=r, table=t)).spec.name for r in ("head", "leaderboard") for t in ("stock", "corrected")
    }
    assert len(names) == 4, "scores under different rules or tables must not share a name"


def test_options_of_the_latency_reach_it() -> None:
    spec = make_env(EnvConfig(env="latency", latency_mean_s=0.002, latency_max_s=0.003)).spec
    assert "0.002" in spec.name
    assert "0.003" in spec.name


def test_several_copies_of_a_gymnasium_environment() -> None:
    assert make_env(EnvConfig(env="CartPole-v1"), max_batch=5).max_batch == 5


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("cage", "did you mean 'cage2'"), ("CartPol-v1", "did you mean 'CartPole-v1'"), ("CartPole-v99", "CartPole-v1")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy) as refusal:
        make_env(EnvConfig(env=name))
    assert name in str(refusal.value)


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(UserError, match="no_such_module"):
        make_env(EnvConfig(env="no_such_module:Env-v0"))


def test_a_process_keeps_its_environment_until_asked_for_another() -> None:
    first = env_of_this_process(EnvConfig(env="CartPole-v1").options)
    assert env_of_this_process(EnvConfig(env="CartPole-v1").options) is first
    assert env_of_this_process(EnvConfig(env="latency").options) is not first
