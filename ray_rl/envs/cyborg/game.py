"""One CybORG, built once and played from episode to episode, with random numbers of its own."""

from __future__ import annotations

from typing import Any

from ray_rl.envs.cage2.constants import (
    ACTION_NAMES,
    FIRST_HOST_ACTION,
    HOSTS,
    N_HOSTS,
)
from ray_rl.envs.cyborg.find import Upstream
from ray_rl.envs.cyborg.own_random import OwnRandom
from ray_rl.episodes import RED_AGENTS

_SERVICE = "OTService"


class Game:
    """CAGE-2 in CybORG: Blue acts by the numbers 0…144, Red by itself.

    All rules are CybORG's own. Only the true state, which CybORG collects after every step to count the reward, is
    asked for no further than the reward reads it: Red's sessions, the systems, and the processes where the OT service
    runs (in an episode's first step everything, for then the reward looks for that service). It is what CybORG spends
    most of a step on.

    Args:
        upstream: The package.

    Attributes:
        cyborg: The ``CybORG``.
        controller: Its environment controller, which holds state, agents and observations.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._agents = {name: getattr(upstream.agents, name) for name in RED_AGENTS}
        self._random = OwnRandom()
        with self._random.in_use(seed=0):
            self.cyborg = upstream.cyborg(str(upstream.scenario), "sim", agents={"Red": self._agents[RED_AGENTS[0]]})
        self.controller: Any = self.cyborg.environment_controller
        self._everything = self.controller.INFO_DICT["True"]
        self._what_counts = _what_the_reward_reads(self.controller.state)
        self._actions = blue_actions(upstream.actions)

    def reset(self, seed: int, red_agent: str) -> dict[str, Any]:
        """Start an episode.

        Args:
            seed: What Python's generator starts from, as if ``random.seed(seed)`` were called before ``reset``.
            red_agent: One of `ray_rl.episodes.RED_AGENTS`.

        Returns:
            Blue's observation as CybORG gives it.
        """
        self.controller.agent_interfaces["Red"].agent = self._agents[red_agent]()
        self.controller.INFO_DICT["True"] = self._everything
        with self._random.in_use(seed):
            observation: dict[str, Any] = self.cyborg.reset(agent="Blue").observation
        return observation

    def step(self, action: int) -> tuple[dict[str, Any], float]:
        """Take one step.

        Args:
            action: Blue's action, 0…144.

        Returns:
            Blue's observation as CybORG gives it (its raw events among it), and its reward.
        """
        with self._random.in_use():
            result = self.cyborg.step(agent="Blue", action=self._actions[action])
        self.controller.INFO_DICT["True"] = self._what_counts
        return result.observation, float(result.reward)


def blue_actions(actions: Any) -> list[Any]:
    """The 145 actions as objects, in the order of CybORG's EnumActionWrapper.

    Args:
        actions: Module ``CybORG.Shared.Actions``.
    """
    made = [actions.Sleep(), actions.Monitor(session=0, agent="Blue")]
    for name in ACTION_NAMES[FIRST_HOST_ACTION::N_HOSTS]:
        kind = getattr(actions, name.split()[0])
        made += [kind(session=0, agent="Blue", hostname=host) for host in HOSTS]
    return made


def _what_the_reward_reads(state: Any) -> dict[str, dict[str, Any]]:
    wanted: dict[str, dict[str, Any]] = {}
    for name, host in state.hosts.items():
        wanted[name] = {"System info": "All", "Sessions": "Red"}
        if any(process.name == _SERVICE for process in host.processes):
            wanted[name]["Processes"] = ["All"]
    return wanted
