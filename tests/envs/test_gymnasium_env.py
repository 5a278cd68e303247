"""Any gymnasium environment behind the contract: seeds, masks, kinds of spaces, and copies stepped together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ray_rl.config import UserError
from ray_rl.envs.api import EnvError
from ray_rl.envs.gymnasium_env import GymnasiumEnv
from ray_rl.episodes import EpisodeRequest, episode_requests

BOX = spaces.Box(-10, 10, (2, 3), np.float32)


class Made(gymnasium.Env[Any, Any]):
    """Draws observations from its space, ends after some steps, and tells what it was given.

    Args:
        observation_space: What it draws from.
        action_space: What it takes.
        masked: Whether it says which actions are allowed.
        spoil: What to do to the information of step 2.
    """

    seeds: list[int | None] = []  # noqa: RUF012
    actions: list[int] = []  # noqa: RUF012

    def __init__(
        self,
        observation_space: spaces.Space[Any] = BOX,
        action_space: spaces.Space[Any] | None = None,
        masked: bool = False,
        spoil: str = "",
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Discrete(3)
        self._masked = masked
        self._spoil = spoil
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.observation_space.seed(seed)
        self._step = 0
        return self._seen()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self._step += 1
        seen, info = self._seen()
        if self._spoil == "raise" and self._step == 2:
            raise KeyError("lost")
        return seen, float(self._step), self._step == 5, False, info

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        info = {"action_mask": np.arange(3) != self._step % 3} if self._masked else {}
        if self._step == 5 or (self._step == 2 and self._spoil == "no mask"):
            info = {}
        if self._step == 2 and self._spoil == "short mask":
            info = {"action_mask": np.ones(2)}
        return self.observation_space.sample(), info


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    Made.seeds.clear()
    Made.actions.clear()
    variants: dict[str, dict[str, Any]] = {
        "Plain-v0": {},
        "Masked-v0": {"masked": True},
        "NoMask-v0": {"masked": True, "spoil": "no mask"},
        "ShortMask-v0": {"masked": True, "spoil": "short mask"},
        "Raises-v0": {"spoil": "raise"},
        "Bits-v0": {"observation_space": spaces.MultiBinary(7)},
        "Symbols-v0": {"observation_space": spaces.Discrete(4, start=2)},
        "Shifted-v0": {"action_space": spaces.Discrete(3, start=-1)},
        "Continuous-v0": {"action_space": BOX},
        "Words-v0": {"observation_space": spaces.Text(4)},
    }
    for name, options in variants.items():
        gymnasium.register(f"Made{name}", Made, kwargs=options, disable_env_checker=True)
    yield
    for name in variants:
        del gymnasium.registry[f"Made{name}"]


def test_boxes_are_flattened() -> None:
    env = GymnasiumEnv("MadePlain-v0", 2)
    spec = env.spec
    assert (spec.observation_size, spec.observation_bits, spec.n_actions, spec.has_action_masks) == (6, False, 3, False)
    seen = env.reset([EpisodeRequest(0, 5, 10), EpisodeRequest(1, 6, 10)])
    assert seen.shape == (2, 6)
    assert seen.dtype == np.float32
    alone, _ = gymnasium.make("MadePlain-v0").reset(seed=6)
    np.testing.assert_array_equal(seen[1], alone.ravel())
    assert env.action_masks() is None


def test_bits_stay_bits_and_symbols_become_indicators() -> None:
    bits = GymnasiumEnv("MadeBits-v0")
    assert bits.spec.observation_bits
    seen = bits.reset([EpisodeRequest(0, 5, 10)])
    assert seen.dtype == np.uint8
    assert set(np.unique(seen)) <= {0, 1}
    symbols = GymnasiumEnv("MadeSymbols-v0")
    assert symbols.spec.observation_size == 4
    assert sorted(symbols.reset([EpisodeRequest(0, 5, 10)])[0].tolist()) == [0, 0, 0, 1]


def test_each_episode_is_seeded_by_its_own_seed_cut_to_32_bits() -> None:
    env = GymnasiumEnv("MadePlain-v0", 2)
    Made.seeds.clear()
    env.reset([EpisodeRequest(0, 2**40 + 7, 10), EpisodeRequest(1, 12, 10)])
    assert Made.seeds == [7, 12]


def test_actions_are_shifted_to_where_the_space_starts() -> None:
    env = GymnasiumEnv("MadeShifted-v0")
    env.reset([EpisodeRequest(0, 1, 10)])
    for action in (0, 1, 2):
        env.step(np.array([action]))
    assert Made.actions == [-1, 0, 1]


def test_masks_are_handed_on() -> None:
    env = GymnasiumEnv("MadeMasked-v0")
    env.reset([EpisodeRequest(0, 1, 10)])
    for step in range(3):
        masks = env.action_masks()
        assert masks is not None
        assert masks.tolist() == [[k != step % 3 for k in range(3)]]
        env.step(np.array([0]))
    env.step(np.array([0]))
    assert env.step(np.array([0])).terminated.all(), "the last step needs no mask"


def test_the_end_by_itself_and_the_limit_of_steps() -> None:
    env = GymnasiumEnv("MadePlain-v0", 2)
    env.reset([EpisodeRequest(0, 1, 3), EpisodeRequest(1, 2, 10)])
    ends = []
    for _ in range(5):
        result = env.step(np.zeros(2, dtype=np.int64))
        ends.append((result.terminated.tolist(), result.truncated.tolist()))
    go_on = ([False, False], [False, False])
    assert ends[:2] == [go_on, go_on]
    assert ends[2] == ([False, False], [True, False])
    assert ends[4] == ([False, True], [False, False])
    assert len(Made.actions) == 3 + 5, "an episode that is over is not stepped"


def test_an_episode_does_not_depend_on_its_company() -> None:
    requests = episode_requests(0, 0, 3, red_agent="mixed", max_steps=20)
    together, alone = GymnasiumEnv("CartPole-v1", 3), GymnasiumEnv("CartPole-v1", 1)
    together.reset(requests)
    alone.reset(requests[1:2])
    for _ in range(8):
        a, b = together.step(np.array([0, 1, 0])), alone.step(np.array([1]))
        np.testing.assert_array_equal(a.observations[1], b.observations[0])


def test_what_was_returned_does_not_change_later() -> None:
    env = GymnasiumEnv("MadePlain-v0")
    first = env.reset([EpisodeRequest(0, 1, 10)])
    before = first.copy()
    second = env.step(np.array([0])).observations
    np.testing.assert_array_equal(first, before)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "cause"),
    [("Raises", "KeyError: 'lost'"), ("NoMask", "action_mask"), ("ShortMask", "action_mask.*shape")],
)
def test_a_fault_names_its_slot(name: str, cause: str) -> None:
    env = GymnasiumEnv(f"Made{name}-v0", 2)
    env.reset([EpisodeRequest(0, 1, 1), EpisodeRequest(1, 2, 10)])
    env.step(np.zeros(2, dtype=np.int64))
    with pytest.raises(EnvError, match=cause) as failure:
        env.step(np.zeros(2, dtype=np.int64))
    assert failure.value.slot == 1


@pytest.mark.parametrize(("name", "kind"), [("Continuous", "actions"), ("Words", "observations")])
def test_spaces_that_cannot_be_trained_on_are_refused(name: str, kind: str) -> None:
    with pytest.raises(UserError, match=f"Made{name}-v0' has {kind}"):
        GymnasiumEnv(f"Made{name}-v0")


@pytest.mark.parametrize("n", [0, 3])
def test_more_episodes_than_copies_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="1 to 2"):
        GymnasiumEnv("MadePlain-v0", 2).reset([EpisodeRequest(k, k, 10) for k in range(n)])


def test_closing_twice_is_safe() -> None:
    env = GymnasiumEnv("CartPole-v1", 2)
    env.close()
    env.close()
