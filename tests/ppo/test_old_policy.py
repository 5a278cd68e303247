"""What the old policy says, told by one thread while another waits for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ray_rl.ppo.old_policy import OldPolicy


def test_a_minibatch_can_be_used_before_the_next_is_told() -> None:
    old = OldPolicy(torch.full((4,), torch.nan), 2)
    with ThreadPoolExecutor(1) as other:
        last = other.submit(old.wait)
        old.tell(torch.tensor([3, 0]), torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 0.5]), 0)
        old.wait(0)
        assert old.log_probs[[3, 0]].tolist() == [-1.0, -2.0]
        assert old.corrections.tolist() == [0.5, 1.0, 1.0, 1.0]
        assert not last.done()
        old.tell(torch.tensor([1, 2]), torch.tensor([-3.0, -4.0]), torch.tensor([2.0, 2.0]), 1)
        last.result(timeout=60)
    assert old.log_probs.tolist() == [-2.0, -3.0, -4.0, -1.0]


def test_whoever_waits_fails_with_whoever_tells() -> None:
    old = OldPolicy(torch.zeros(4), 2)
    old.tell(torch.tensor([0, 1]), torch.zeros(2), torch.ones(2), 0)
    old.fail(ValueError("no more"))
    old.wait(0)
    with pytest.raises(ValueError, match="no more"):
        old.wait()
