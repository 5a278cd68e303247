"""Sums in shared memory: right, the same bits for all, of any size, and no waiting for who is gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from ray_rl.ppo import shared_sums, team
from ray_rl.ppo.shared_sums import BrokenSumError, SharedSums, can_share, make_memory
from ray_rl.ppo.team import join_team

pytestmark = pytest.mark.skipif(not can_share(), reason="needs /dev/shm and a processor of Intel or AMD")

SIZE = 3


@pytest.fixture
def memory() -> Iterator[Path]:
    path = make_memory(SIZE)
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("slot_bytes", [2**20, 64])
def test_all_get_the_same_sums_in_the_order_of_ranks_one_after_another(
    slot_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More numbers than a slot has room for are summed in pieces."""
    monkeypatch.setattr(shared_sums, "_SLOT_BYTES", slot_bytes)
    path = make_memory(SIZE)
    drawn = torch.randn(SIZE, 50, 21, generator=torch.Generator().manual_seed(0))

    def take_part(rank: int) -> list[torch.Tensor]:
        sums = SharedSums(path, rank, SIZE, 60.0)
        found = []
        for round_number in range(50):
            numbers = drawn[rank, round_number].clone()
            sums.combine(numbers, largest=round_number % 5 == 4)
            found.append(numbers)
        whole = torch.tensor(rank + 2**40)
        sums.combine(whole, largest=False)
        return [*found, whole]

    try:
        with ThreadPoolExecutor(SIZE) as threads:
            everybodys = list(threads.map(take_part, range(SIZE)))
    finally:
        path.unlink()
    expected = [drawn[:, k].max(0).values if k % 5 == 4 else drawn[0, k] + drawn[1, k] + drawn[2, k] for k in range(50)]
    for found in everybodys:
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=False))
        assert int(found[-1]) == 3 + 3 * 2**40


def test_who_is_killed_is_not_waited_for(memory: Path) -> None:
    here = SharedSums(memory, 0, SIZE, 3600.0)
    SharedSums(memory, 1, SIZE, 3600.0)
    code = f"""
from pathlib import Path
from ray_rl.ppo.shared_sums import SharedSums
SharedSums(Path({str(memory)!r}), 2, {SIZE}, 3600.0)
print("there", flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(here.combine, torch.ones(4), False)
            other.kill()
            with pytest.raises(BrokenSumError, match="its process is gone"):
                waiting.result(timeout=60)


def test_who_is_silent_is_waited_for_so_long_and_no_longer(memory: Path) -> None:
    here = SharedSums(memory, 0, SIZE, 0.05)
    for rank in (1, 2):
        SharedSums(memory, rank, SIZE, 0.05)
    with pytest.raises(BrokenSumError, match=r"silent for 0\.05 s"):
        here.combine(torch.ones(4), largest=False)


def join_three(in_memory: bool = True) -> list[team.Team]:
    store: Any = distributed.HashStore()
    with ThreadPoolExecutor(SIZE) as threads:
        return list(threads.map(lambda rank: join_team(store, rank, SIZE, 60.0, in_memory), range(SIZE)))


def kinds(teams: list[team.Team]) -> set[str]:
    return {type(channel._sums).__name__ for one in teams for channel in (one.actor, one.critic)}


def test_learners_of_one_machine_share_memory_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_sums, "_MEMORY", tmp_path)
    assert kinds(join_three()) == {"SharedSums"}
    assert not list(tmp_path.iterdir())


def test_learners_that_do_not_see_each_other_speak_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kinds(join_three(in_memory=False)) == {"GlooSums"}
    monkeypatch.setattr(team, "can_share", lambda: False)
    assert kinds(join_three()) == {"GlooSums"}
    monkeypatch.undo()

    def open_one(path: Path, rank: int, size: int, silence_s: float) -> SharedSums:
        if rank == 2:
            raise FileNotFoundError(path)  # as on another machine
        return SharedSums(path, rank, size, silence_s)

    monkeypatch.setattr(team, "SharedSums", open_one)
    assert kinds(join_three()) == {"GlooSums"}
