"""The soak: what counts as growth, how a run's record is followed, and a short one on a small cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_rl.chaos.soak import LOOK_S, Look, Soak, Watch, early_and_late
from ray_rl.chaos.training import GrowingFile
from ray_rl.cli import main

MIB = 2**20


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("ray_rl.chaos.soak.time", made)
    return made


def grown(
    clock: Clock,
    folder: Path,
    look: Callable[[int], list[Look]],
    stored: Callable[[int], int] = lambda _: 0,
    n_looks: int = 200,
) -> list[str]:
    """What grew, when look number k sees `look(k)`."""
    folder.mkdir(exist_ok=True)
    watch = Watch(lambda _: look(int(clock.now / LOOK_S)), lambda: stored(int(clock.now / LOOK_S)), folder)
    clock.now = 0.0
    for _ in range(n_looks):
        clock.now += LOOK_S
        watch(1)
    return Soak(1, 1, growths=watch.growths(0)).grown


def test_what_grows_after_the_first_tenth_is_named_and_what_grew_before_is_not(clock: Clock, tmp_path: Path) -> None:
    def leaky(k: int) -> list[Look]:
        return [
            Look("driver", 1, 100 * MIB + min(k, 15) * 10 * MIB, 20),  # fills its caches
            Look("learner", 2, 100 * MIB + k * MIB // 10, 20),  # 0.1 MiB at each look
            Look("worker", 3, 100 * MIB + (k % 7) * MIB, 20 + k // 20),  # opens a file now and then
        ]

    assert grown(clock, tmp_path, leaky) == ["learner: bytes", "worker: descriptors"]


def test_a_process_that_takes_anothers_place_is_a_life_of_its_own_and_the_worst_one_counts(
    clock: Clock, tmp_path: Path
) -> None:
    def restarted(k: int) -> list[Look]:
        return [Look("driver", k // 100, (50 + 100 * (k // 100)) * MIB, 20)]

    def second_leaks(k: int) -> list[Look]:
        return [Look("driver", k // 100, 50 * MIB + (k // 100) * k * MIB, 20)]

    def short(k: int) -> list[Look]:
        return [Look("worker", k // 10, k * MIB, 20)]

    assert grown(clock, tmp_path, restarted) == []
    assert grown(clock, tmp_path, second_leaks) == ["driver: bytes"]
    assert grown(clock, tmp_path, short) == []


def test_starting_is_no_growth_even_when_it_takes_more_than_a_tenth_of_a_life(clock: Clock, tmp_path: Path) -> None:
    def starting(k: int) -> list[Look]:
        started = min(k, 13) / 13
        return [Look("learner", 1, int((190 + 40 * started) * MIB), 35 + int(8 * started))]

    def leaking(k: int) -> list[Look]:
        return [Look("learner", 1, (200 + k) * MIB, 35 + k // 4)]

    assert grown(clock, tmp_path, starting, n_looks=62) == []
    assert grown(clock, tmp_path, leaking, n_looks=62) == ["learner: bytes", "learner: descriptors"]


def test_a_report_shows_what_each_process_held_all_along_and_what_it_had_open(clock: Clock, tmp_path: Path) -> None:
    def look(k: int) -> list[Look]:
        return [Look("driver", 1 + k // 300, k, 20 + k, (f"file {k}",))]

    watch = Watch(lambda _: look(int(clock.now / LOOK_S)), lambda: 0, tmp_path)
    for _ in range(309):
        clock.now += LOOK_S
        watch(1)
    first, second = watch.lives()
    assert (first.pid, first.first_s, first.last_s) == (1, LOOK_S, 299 * LOOK_S)
    assert first.own_bytes == list(range(1, 300, 3))
    assert first.descriptors == list(range(21, 320, 3))
    assert (first.opened_first, first.opened_last) == (("file 1",), ("file 299",))
    assert (second.pid, second.own_bytes) == (2, list(range(300, 310)))


def test_object_stores_and_files_are_watched_too(clock: Clock, tmp_path: Path) -> None:
    def littering(k: int) -> int:
        if k % 10 == 0:
            (tmp_path / f"{k}.tmp").touch()
        return k * MIB

    assert grown(clock, tmp_path, lambda _: [], littering) == ["object stores: bytes", "run folder: files"]


def test_looks_are_as_far_apart_as_they_should_be(clock: Clock, tmp_path: Path) -> None:
    seen = []
    watch = Watch(lambda driver: seen.append(driver) or [], lambda: 0, tmp_path)
    for _ in range(100):
        clock.now += LOOK_S / 10
        watch(7)
    assert 9 <= len(seen) <= 11
    assert set(seen) == {7}


def test_early_is_after_the_first_tenth() -> None:
    assert early_and_late(list(range(100))) == (14.5, 94.5)


def test_a_record_is_followed_through_torn_lines_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = GrowingFile(path)
    assert file.read() == ([], False)
    path.write_text("one\ntw")
    assert file.read() == (["one"], True)
    assert file.read() == ([], False)
    with path.open("a") as end:
        end.write("o\nthree\n")
    assert file.read() == (["two", "three"], False)
    (tmp_path / "other").write_text("one\ntwo\nthree\nfour\nfive\n")
    (tmp_path / "other").replace(path)
    assert file.read() == (["one", "two", "three", "four", "five"], True)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--soak", "1000000", "--address", "127.0.0.1:6379"], "--soak looks into the processes of this machine"),
        (["--soak", "4000"], "6 faults need a training of 24 updates or more, not 10"),
        (["--soak", "0"], "total_episodes"),
        (["--times", "0"], "--times 1 or more"),
    ],
)
def test_a_soak_that_cannot_be_held_is_refused(flags: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", *flags]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_a_soak_shows_every_process_and_loses_nothing(tmp_path: Path) -> None:
    words = ["chaos", "--soak", "100000", "--episode-steps", "30", "--nodes", "2", "--times", "1"]
    code = main([*words, "--run-dir", str(tmp_path / "runs"), "--json", str(tmp_path / "soak.json")])
    soak = json.loads((tmp_path / "soak.json").read_text())
    assert soak["wrong_updates"] == []
    assert {growth["what"] for growth in soak["growths"]} >= {"driver", "learner", "worker", "object stores"}
    assert [fault for fault, _, _ in soak["faults"]].count("driver") == 1
    assert code == (1 if soak["grown"] else 0)
