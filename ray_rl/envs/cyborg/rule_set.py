"""Which rule set a CybORG plays by, told by what it does; anything but CAGE-2 as published is refused with a reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from ray_rl.envs.cage2.constants import (
    ACTION_NAMES,
    BASE_SOCKETS,
    FIRST_DECOY_BLOCK,
    FIRST_HOST_ACTION,
    HOSTS,
    N_HOSTS,
    RESTORE_BLOCK,
    SLEEP,
    SUBNETS,
    TOMCAT,
    USER2,
    USER3,
    action_index,
)
from ray_rl.envs.cyborg.find import Upstream
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.truth import listening_sockets
from ray_rl.episodes import RED_AGENTS
from ray_rl.failures import UserError

_SCENARIO_DIGEST = "593ca57a3c0aec4dad40dbd4f6f6e415f23d37f54309de4ab5b6fe2b9264aaa3"
"""SHA-256 of Scenario2 with its host images as CybORG parses them, as sorted JSON; the same in both versions."""
_SLEEPER = RED_AGENTS[2]


def identify(game: Game, upstream: Upstream) -> str:
    """Tell the rule set of a CybORG.

    A port that Red saw in a scan and that a later scan does not show any more stays in its list by the rules
    ``leaderboard`` and goes by the rules ``head``; HarakaRCE on a restored User3 fails or works.

    Args:
        game: Any game; whatever it played is over.
        upstream: The package, for its actions.

    Returns:
        ``head`` or ``leaderboard``.

    Raises:
        UserError: When it is neither.
    """
    try:
        reason = _modified(game)
        keeps_ports, haraka_works = (False, True) if reason else _probe(game, upstream.actions)
    except Exception as error:
        raise UserError(
            f"the CybORG in {upstream.folder} cannot play: {type(error).__name__}: {error}. Use a clean checkout of "
            "cage-challenge-2"
        ) from error
    if reason:
        raise UserError(
            f"the CybORG in {upstream.folder} does not play CAGE-2 as published: {reason}. Use a clean checkout of "
            "cage-challenge-2"
        )
    if keeps_ports == haraka_works:
        raise UserError(
            f"the CybORG in {upstream.folder} is neither rule set: port scans {'add up' if keeps_ports else 'replace'} "
            f"each other as in {'leaderboard' if keeps_ports else 'head'}, but Haraka "
            f"{'works' if haraka_works else 'fails'} after a Restore as in "
            f"{'head' if haraka_works else 'leaderboard'}. Use a clean checkout of cage-challenge-2"
        )
    return "leaderboard" if keeps_ports else "head"


def _modified(game: Game) -> str:
    """What differs from the published scenario first; empty when nothing does."""
    game.reset(0, _SLEEPER)
    state, scenario = game.controller.state, game.controller.scenario
    if list(state.hosts) != list(HOSTS):
        return f"its hosts are {', '.join(state.hosts)}"
    if list(scenario.subnets) != list(SUBNETS):
        return f"its subnets are {', '.join(scenario.subnets)}"
    blue = [kind.__name__ for kind in game.controller.agent_interfaces["Blue"].action_space.actions]
    expected = [name.split()[0] for name in (*ACTION_NAMES[:FIRST_HOST_ACTION], *ACTION_NAMES[2::N_HOSTS])]
    if blue != expected:
        return f"Blue's actions are {', '.join(blue)}"
    for host, found, published in zip(HOSTS, listening_sockets(game).tolist(), BASE_SOCKETS.tolist(), strict=True):
        if found != published:
            return f"{host} listens on {found} sockets instead of {published}"
    content = json.dumps(scenario._scenario, sort_keys=True, default=str)
    if hashlib.sha256(content.encode()).hexdigest() != _SCENARIO_DIGEST:
        return "its Scenario2.yaml or the host images beside it were changed"
    return ""


class _ScriptedRed:
    """A red agent that does what a list says, one function per step."""

    def __init__(self, script: list[Callable[[], Any]]) -> None:
        self._script = iter(script)

    def get_action(self, observation: Any, action_space: Any) -> Any:
        return next(self._script)()

    def train(self, results: Any) -> None:
        """Called by CybORG after each step."""

    def end_episode(self) -> None:
        """Called by CybORG when it resets."""


def _probe(game: Game, actions: Any) -> tuple[bool, bool]:
    """Play a few steps; returns whether Red keeps a port that went away, and whether Haraka works after a Restore."""
    game.reset(0, _SLEEPER)
    controller = game.controller
    addresses = {host: address for address, host in controller.state.ip_addresses.items()}
    user_net = controller.state.subnet_name_to_cidr["User"]

    def scan() -> Any:
        return actions.DiscoverNetworkServices(session=0, agent="Red", ip_address=addresses[HOSTS[USER2]])

    def haraka() -> Any:
        return actions.HarakaRCE(session=0, agent="Red", ip_address=addresses[HOSTS[USER3]], target_session=0)

    def sweep() -> Any:
        return actions.DiscoverRemoteSystems(session=0, agent="Red", subnet=user_net)

    controller.agent_interfaces["Red"].agent = _ScriptedRed([sweep, scan, scan, haraka])
    blue = (
        action_index(FIRST_DECOY_BLOCK + TOMCAT, USER2),
        SLEEP,
        action_index(RESTORE_BLOCK, USER2),
        action_index(RESTORE_BLOCK, USER3),
    )
    for action in blue:
        game.step(action)
    ports = controller.state.sessions["Red"][0].ports[addresses[HOSTS[USER2]]]
    succeeded = controller.observation["Red"].data["success"]
    return 443 in ports, succeeded.name == "TRUE"
