"""The lease of a run in remote storage: refused while its owner lives, taken over when the owner is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

import pytest

import ray_rl.lease
from ray_rl.config import UserError
from ray_rl.failures import RunError
from ray_rl.lease import Lease, Owner, held, lease_file
from ray_rl.storage import is_remote, location, write_whole

BEAT_S = 0.1


def take(place: str, said: list[str] | None = None) -> Lease:
    folder = location(place)
    assert is_remote(folder)
    return Lease.take(folder, (said if said is not None else []).append, BEAT_S)


def leave(place: str, number: int = 1, **changes: object) -> None:
    """A lease whose owner, on another machine, was killed."""
    owner = {"key": "1", "host": "spot-7", "pid": 41, "pid_space": "elsewhere", "beats": 5}
    write_whole(lease_file(location(place), number), json.dumps(owner | changes).encode())


def holder(place: str) -> str:
    file = held(location(place))
    return file.read_text() if file is not None else "nobody"


def test_a_second_driver_is_refused_while_the_first_lives(place: str) -> None:
    first = take(place)
    with pytest.raises(UserError, match=r"is in use by process .* choose another --run-dir"):
        take(place)
    first.check()
    first.close()
    assert holder(place) == "nobody"
    take(place).close()


def test_the_lease_of_a_vanished_machine_is_taken_over_after_a_wait(place: str) -> None:
    leave(place)
    said: list[str] = []
    lease = take(place, said)
    assert "process 41 on spot-7: waiting" in said[0]
    assert "spot-7" not in holder(place)
    lease.close()


def test_a_lease_that_cannot_be_read_is_taken_over_too(place: str) -> None:
    write_whole(lease_file(location(place)), b'{"key": "1", "ho')
    take(place).close()


def test_no_wait_for_a_process_of_this_machine_that_was_killed(place: str) -> None:
    code = "from ray_rl.lease import Owner; o = Owner.this_process(); print(o.pid, o.pid_space, sep='|')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    pid, space = ended.split("|")
    leave(place, pid=int(pid), pid_space=space)
    said: list[str] = []
    take(place, said).close()
    assert said == []


def test_an_owner_elsewhere_is_never_thought_gone() -> None:
    assert not Owner("k", "host", 2**22 + 1, "another machine").is_gone()
    assert not Owner("k", "host", 2**22 + 1, "").is_gone()


def test_a_driver_that_slept_while_another_took_over_writes_nothing_more(place: str) -> None:
    sleeper = take(place)
    leave(place, number=2, key="2", host="heir")
    with pytest.raises(RunError, match="taken over by process 41 on heir"):
        sleeper.check()
    sleeper.close()
    assert "heir" in holder(place)


def test_a_driver_that_slept_while_another_took_over_and_finished_writes_nothing_more(place: str) -> None:
    sleeper = take(place)
    lease_file(location(place)).unlink()
    with pytest.raises(RunError, match="was taken over while"):
        sleeper.check()
    sleeper.close()
    assert holder(place) == "nobody"


def test_who_was_slow_to_take_over_does_not_remove_the_lease_of_who_was_quick(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(place)
    quick: list[Lease] = []
    watch = ray_rl.lease._stands_still

    def watch_and_be_late(*arguments: Any) -> bool:
        gone = watch(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(ray_rl.lease, "_stands_still", watch)
            quick.append(take(place))
        return gone

    with monkeypatch.context() as patch:
        patch.setattr(ray_rl.lease, "_stands_still", watch_and_be_late)
        with pytest.raises(UserError, match="is in use by process"):
            take(place)
    quick[0].check()
    quick[0].close()


def test_of_many_that_start_at_once_one_gets_it(place: str) -> None:
    leave(place)
    got: list[Lease] = []
    refused: list[UserError] = []

    def start() -> None:
        try:
            got.append(take(place))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 4)
    got[0].close()
