"""A training ends when its order is learned, or will not be."""

from __future__ import annotations

import pytest

from ray_rl.workflow.gate import gate_outcome


@pytest.mark.parametrize(
    ("compliance", "patience", "outcome"),
    [
        ([], 3, None),
        ([0.5, 0.91], 3, "met"),
        ([0.5, 0.9], 3, "met"),
        ([0.91, 0.5], 3, None),  # only the latest counts
        ([0.5, 0.505, 0.509, 0.509], 3, "plateau"),
        ([0.5, 0.505, 0.51, 0.509], 3, None),  # the third gained 0.01
        ([0.5, 0.4, 0.3, 0.95], 3, "met"),
        ([0.5, 0.4], 1, "plateau"),
    ],
)
def test_the_gate(compliance: list[float], patience: int, outcome: str | None) -> None:
    assert gate_outcome(compliance, 0.9, patience) == outcome
