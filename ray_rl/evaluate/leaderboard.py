"""The published table of CAGE Challenge 2, and where a score stands in it.

The table holds for one rule set, ``leaderboard`` (CybORG 2.1 at commit 606813b). A score under ``head`` cannot be
placed in it: the same weights score otherwise there. Beside the table stand scores of the winner's weights, measured
anew under both rule sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ray_rl.config import RuleSet, UserError
from ray_rl.episodes import PROTOCOL_STEPS, RED_AGENTS

TABLE_RULES: RuleSet = "leaderboard"
"""The rule set that the published table holds for."""
TABLE_EPISODES = 1000
"""Episodes per cell behind each published score."""

_CELLS = tuple((agent, steps) for steps in PROTOCOL_STEPS for agent in RED_AGENTS)


@dataclass(frozen=True, slots=True)
class Entry:
    """A published score.

    Attributes:
        rank: Place in the table, from 1.
        team: Who submitted it.
        method: Their name for it.
        total: Sum over the nine cells.
        half_width: Half the width of its 95 % interval.
        cells: Mean return by (red agent, steps).
    """

    rank: int
    team: str
    method: str
    total: float
    half_width: float
    cells: dict[tuple[str, int], float]

    def cell(self, red_agent: str, steps: int) -> float:
        """Mean return of one cell.

        Raises:
            UserError: When the table has no such cell.
        """
        if (red_agent, steps) not in self.cells:
            raise UserError(
                f"the published table has no cell {red_agent} over {steps} steps: it has {', '.join(RED_AGENTS)} over "
                f"{', '.join(map(str, PROTOCOL_STEPS))} steps"
            )
        return self.cells[red_agent, steps]


def _entry(rank: int, team: str, method: str, total: float, half_width: float, means: tuple[float, ...]) -> Entry:
    return Entry(rank, team, method, total, half_width, dict(zip(_CELLS, means, strict=True)))


PUBLISHED = (
    _entry(1, "CardiffUni", "PPO + Greedy Decoys", -54.57, 0.43, (-3.47, -5.64, 0, -6.41, -8.69, 0, -13.76, -16.6, 0)),
    _entry(
        2, "Keeping it RL", "Ensemble of Ensembles", -56.9, 0.59, (-3.48, -6.47, 0, -5.85, -10.33, 0, -11.39, -19.38, 0)
    ),
    _entry(
        3, "Mindrake", "HIPPO Float Observations", -57.05, 0.56, (-3.53, -6.76, 0, -6.2, -10.13, 0, -12.78, -17.65, 0)
    ),
    _entry(4, "Mindrake", "HIPPO-Heuristic", -57.29, 0.59, (-3.69, -6.81, 0, -6.24, -10.09, 0, -12.86, -17.6, 0)),
    _entry(
        5, "Mindrake", "HIPPO Bandit Controller", -57.46, 0.74, (-3.73, -6.85, 0, -6.65, -9.98, 0, -12.86, -17.39, 0)
    ),
    _entry(6, "Keeping it RL", "Ensemble", -58.68, 0.61, (-3.62, -6.57, 0, -6.1, -10.32, 0, -11.9, -20.16, 0)),
    _entry(7, "UoA", "Belief Ensemble", -69.88, 0.88, (-3.87, -6.54, 0, -6.74, -12.01, 0, -14.63, -26.09, 0)),
    _entry(
        8, "Keeping it RL", "Transfer Learning", -70.12, 0.71, (-5.54, -6.4, 0, -9.74, -10.21, 0, -19.57, -18.65, 0)
    ),
    _entry(9, "Keeping it RL", "Action Masking", -72.17, 1.6, (-4.61, -6.45, 0, -7.92, -11.22, 0, -17.75, -24.22, 0)),
    _entry(10, "Keeping it RL", "PPO", -73.98, 0.94, (-4.76, -8.03, 0, -8.13, -12.91, 0, -17.19, -22.94, -0.01)),
    _entry(11, "SRG Raytheon", "HPPO", -75.7, 1.29, (-4.44, -6.57, 0, -7.7, -11.78, 0, -15.68, -29.52, 0)),
    _entry(12, "UoA", "Ensemble", -81.83, 0.86, (-6.02, -6.23, 0, -10.19, -11.74, 0, -22.09, -25.55, 0)),
    _entry(
        13, "CCS RL Benchmark", "PPO", -95.47, 1.36, (-8.75, -7.31, -0.01, -14.92, -12.04, -0.01, -30.19, -22.21, -0.03)
    ),
    _entry(14, "Keeping it RL", "HPPO", -119.7, 1.63, (-4.64, -9.15, 0, -8.45, -22.3, 0, -17.44, -57.72, 0)),
    _entry(
        15,
        "Reward is not Enough",
        "ACME IMPALA CAGE 2",
        -122.91,
        1.11,
        (-6, -9.27, -0.12, -10.25, -22.27, -0.16, -19.72, -54.79, -0.33),
    ),
    _entry(
        16,
        "KingMatthew",
        "PPO with RE3 Exploration",
        -137.79,
        3.89,
        (-12.48, -6.99, 0, -23.33, -12.26, -0.01, -54.01, -28.69, -0.02),
    ),
    _entry(17, "UTS_CIBCI", "Ensembled DDDQN", -154.71, 1.95, (-5.87, -10.93, 0, -10.82, -26.29, 0, -23.96, -67.89, 0)),
    _entry(
        18,
        "CCS Heuristic",
        "Blue React Restore",
        -823.89,
        1.03,
        (-58.83, -44.29, -27, -93.05, -85.75, -46, -184.34, -192.63, -92),
    ),
    _entry(
        19,
        "CCS Random",
        "Random Agent",
        -2015.61,
        30.93,
        (-154.06, -33.43, -2.8, -347.1, -171.49, -4.45, -726.92, -566.41, -8.94),
    ),
    _entry(
        20,
        "CCS Sleeper",
        "Sleeping Agent",
        -3112.2,
        6.67,
        (-218.65, -39.31, 0, -480.17, -267.6, 0, -1134.03, -972.43, 0),
    ),
)
"""Scores as the organisers validated and published them, with ``random.seed(153)``.

Source: README of the repository cage-challenge/cage-challenge-2. Its row 17 is given as it stands there, although its
cells add up to -145.76.
"""


@dataclass(frozen=True, slots=True)
class WinnerAgain:
    """The winner's own weights, measured anew in CybORG's own wrappers, 100 to 150 episodes per cell.

    Attributes:
        rules: The rule set.
        total: Sum over the nine cells.
        cells: Mean return by (red agent, steps).
    """

    rules: RuleSet
    total: float
    cells: dict[tuple[str, int], float]


def _winner(rules: RuleSet, total: float, b_line: tuple[float, ...], meander: tuple[float, ...]) -> WinnerAgain:
    means = [mean for pair in zip(b_line, meander, strict=True) for mean in (*pair, 0.0)]
    return WinnerAgain(rules, total, dict(zip(_CELLS, means, strict=True)))


WINNER_AGAIN = {
    "head": _winner("head", -87.7, (-5.1, -13.5, -38.4), (-5.7, -8.4, -16.5)),
    "leaderboard": _winner("leaderboard", -54.2, (-3.4, -6.5, -13.5), (-5.7, -8.6, -16.5)),
}
"""By rule set."""


def is_complete(cells: Sequence[tuple[str, int]]) -> bool:
    """Whether (red agent, steps) are the nine cells that a total of the table adds up."""
    return sorted(cells) == sorted(_CELLS)


def rank_of(total: float) -> int:
    """The place that a total would take in the published table, from 1; equal totals share the better place."""
    return 1 + sum(entry.total > total for entry in PUBLISHED)


RAW_EVENTS = "it sees raw events besides the table: another class than defenders that see the table alone"
"""What is said of every score of the view ``raw``."""


def standing(total: float, half_width: float, rules: RuleSet, raw_events: bool = False) -> list[str]:
    """Say where a total over all nine cells stands, one fact a line.

    Args:
        total: Sum over the nine cells.
        half_width: Half the width of its 95 % interval.
        rules: The rule set that it was played under; every line names the one it speaks of.
        raw_events: Whether the policy sees raw events (view ``raw``), which is said first.
    """
    label = [RAW_EVENTS] if raw_events else []
    first = PUBLISHED[0]
    winner = WINNER_AGAIN[rules]
    again = (
        f"the winner's weights under {rules}, measured anew: {winner.total:.1f} (100 to 150 episodes per cell); "
        f"this policy: {total - winner.total:+.1f}"
    )
    if rules != TABLE_RULES:
        return [
            *label,
            f"the published table holds for the rules {TABLE_RULES}; a total under {rules} is not comparable with it",
            again,
        ]
    rank = rank_of(total)
    lines = [
        *label,
        f"place {rank} of {len(PUBLISHED) + 1} in the published table (rules {TABLE_RULES}, {TABLE_EPISODES} episodes "
        f"per cell): {total:.2f} ± {half_width:.2f}",
    ]
    near = [entry for entry in PUBLISHED if entry.rank in (rank - 1, rank)]
    lines += [
        f"{'before' if entry.rank < rank else 'behind'} it: {entry.rank}. {entry.team}, {entry.method}, "
        f"{entry.total:.2f} ± {entry.half_width:.2f}"
        for entry in near
    ]
    if first not in near:
        lines.append(f"first: {first.team}, {first.method}, {first.total:.2f} ± {first.half_width:.2f}")
    return [*lines, again]
