"""Adds to episodes what following their orders of repair earned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_rl.episodes import EpisodeBatch
from ray_rl.workflow.alignment import align
from ray_rl.workflow.rule import AlignmentRule


def reward_alignment(batch: EpisodeBatch, verdicts: NDArray[np.int8], rule: AlignmentRule) -> EpisodeBatch:
    """The same episodes with alignment rewards, compliance and fixes.

    Args:
        batch: Episodes that were asked to follow orders.
        verdicts: [M] int8, of each step.
        rule: What following is worth.
    """
    found = align(verdicts, batch.lengths, rule)
    extras: dict[str, NDArray[Any]] = {
        "compliance": found.compliance,
        "fixes": found.fixes,
        "alignment_return": found.returns,
    }
    return replace(batch, alignment_rewards=found.rewards, extras=batch.extras | extras)
