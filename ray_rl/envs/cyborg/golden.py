"""The golden traces: recordings of CybORG that the simulator is held against wherever CybORG itself is missing.

``python -m ray_rl.envs.cyborg.golden --cyborg-path DIR --to tests/data/cage2`` makes those of one rule set.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cage2.constants import (
    DECOYS,
    FIRST_DECOY_BLOCK,
    FIRST_HOST_ACTION,
    N_HOSTS,
    OP_SERVER0,
    RED_ACTIONS,
    REMOVE_BLOCK,
    RESTORE_BLOCK,
    TRUE,
)
from ray_rl.envs.cage2.traces import Trace, replay
from ray_rl.envs.cyborg.blue_policies import BLUE_POLICIES
from ray_rl.envs.cyborg.find import load
from ray_rl.envs.cyborg.game import Game
from ray_rl.envs.cyborg.recorder import RED_NAMES, record_episodes, save_trace
from ray_rl.envs.cyborg.rule_set import identify
from ray_rl.failures import UserError
from ray_rl.seeding import Purpose, episode_seeds

_PLAN = (("probing", 30, 36), ("probing", 50, 22), ("probing", 100, 12), ("mixed", 30, 36), ("mixed", 50, 22))
"""Blue's policy, steps, episodes; against each red agent."""
_SEED = 20


def record_golden(game: Game, rules: str, folder: Path) -> list[Trace]:
    """Record the golden traces of a rule set.

    Args:
        game: A CybORG with these rules.
        rules: Names the subfolder.
        folder: Where the subfolder lies or is made.

    Raises:
        UserError: When the simulator does not replay a recording.
    """
    traces = []
    for number, (red, (blue, n_steps, count)) in enumerate((red, line) for red in RED_NAMES for line in _PLAN):
        seeds = episode_seeds(_SEED, Purpose.VERIFY, 1000 * number, count).tolist()
        trace = record_episodes(game, red, BLUE_POLICIES[blue], seeds, n_steps, blue)
        report = replay(trace, rules)
        if report.n_mismatches:
            raise UserError(f"the simulator does not replay what CybORG did:\n{report.first_difference}")
        save_trace(trace, folder / rules)
        traces.append(trace)
    return traces


def coverage(traces: Iterable[Trace]) -> Counter[str]:
    """Count the situations in recordings that are easily got wrong.

    Args:
        traces: Recordings of one rule set.

    Returns:
        Number of steps of each kind; kinds that never occur are 0.
    """
    found: Counter[str] = Counter()
    for trace in traces:
        for what, where in _situations(trace.arrays).items():
            found[what] += int(where.sum())
    return found


def _situations(recorded: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.bool_]]:
    """Boolean [E, T] for each kind of situation."""
    action = recorded["blue_action"].astype(int)
    block, host = np.divmod(action - FIRST_HOST_ACTION, N_HOSTS)
    red_action, red_success = recorded["red_action"], recorded["red_success"]
    impacts = (red_action == RED_ACTIONS.index("Impact")) & (red_success == TRUE)
    impacted_before = np.cumsum(impacts, axis=1) - impacts > 0
    restores_server = (block == RESTORE_BLOCK) & (host == OP_SERVER0)
    same_host = host == recorded["red_host"]
    scans = red_action == RED_ACTIONS.index("DiscoverNetworkServices")
    exploits = red_action == RED_ACTIONS.index("ExploitRemoteService")
    escalates = red_action == RED_ACTIONS.index("PrivilegeEscalate")
    places = (block >= FIRST_DECOY_BLOCK) & (block < RESTORE_BLOCK)
    placed = places & (recorded["blue_success"] == TRUE)
    situations = {f"{decoy} placed": placed & (block == FIRST_DECOY_BLOCK + k) for k, decoy in enumerate(DECOYS)}
    return situations | {
        "decoy that does not fit": places & ~placed,
        "Restore Op_Server0 before Impact": restores_server & ~impacted_before,
        "Restore Op_Server0 after Impact": restores_server & impacted_before,
        "Impact without effect": impacts & (recorded["ot"][:, 1:, 0] == 1),
        "decoy and scan in one step": placed & same_host & scans,
        "decoy and exploit in one step": placed & same_host & exploits,
        "Remove and escalation in one step": (block == REMOVE_BLOCK) & same_host & escalates,
        "Restore and exploit in one step": (block == RESTORE_BLOCK) & same_host & exploits,
    }


def main(words: list[str] | None = None) -> int:
    """Record the golden traces of an installed CybORG; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ray_rl.envs.cyborg.golden", description=__doc__)
    parser.add_argument("--cyborg-path", help="folder of a CybORG 2.1 checkout; none: an installed one")
    parser.add_argument("--to", type=Path, required=True, help="folder; the rule set's name is added")
    flags = parser.parse_args(words)
    try:
        upstream = load(flags.cyborg_path)
        game = Game(upstream)
        rules = identify(game, upstream)
        traces = record_golden(game, rules, flags.to)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for what, count in coverage(traces).items():
        print(f"{count:6d} × {what}")
    print(f"{len(traces)} traces in {flags.to / rules}, all replayed by the simulator without a difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
