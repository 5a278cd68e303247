"""A Ray that hangs while it starts is given up after a time, and nothing of a Ray of its own is left."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from typing import Any

import psutil
import pytest
import ray

from ray_rl.failures import RunError
from ray_rl.ray_runtime import connection
from ray_rl.ray_start import start_local


def processes() -> set[int]:
    found = psutil.Process().children(recursive=True)
    return {process.pid for process in found if process.status() != psutil.STATUS_ZOMBIE}


def test_whoever_waits_too_long_stops_to_wait_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = processes()

    def wait_for_what_never_ends(**_: Any) -> None:
        subprocess.Popen(["sleep", "1000"])
        threading.Event().wait()

    monkeypatch.setattr(ray, "init", wait_for_what_never_ends)
    with pytest.raises(RunError, match=r"Ray did not start on this machine: it takes longer than 0.5 s\."):
        start_local(1, 0.5)
    assert processes() == before


def test_in_another_thread_it_ends_with_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    before, errors = processes(), []
    monkeypatch.setattr("ray_rl.ray_start._HEAR_S", 0.1)

    def wait_for_a_process(**_: Any) -> None:
        raise RuntimeError(f"the head ended with {subprocess.Popen(['sleep', '1000']).wait()}")

    def start() -> None:
        with pytest.raises(RunError, match="Ray did not start on this machine: the head ended with -9") as error:
            start_local(1, 0.5)
        errors.append(error)

    monkeypatch.setattr(ray, "init", wait_for_a_process)
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert processes() == before


@pytest.mark.parametrize(("times", "is_started"), [(1, True), (2, False)])
def test_ctrl_c_while_it_starts_is_heard_after_that_or_the_second_time_and_leaves_nothing(
    times: int, is_started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, started = processes(), []

    def start_and_be_stopped(**_: Any) -> None:
        subprocess.Popen(["sleep", "1000"])
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        started.append(True)

    monkeypatch.setattr(ray, "init", start_and_be_stopped)
    with pytest.raises(KeyboardInterrupt):
        start_local(1)
    assert bool(started) == is_started
    assert processes() == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_a_worker_started_ends_with_the_ray_of_its_own() -> None:
    with connection(None, 1) as is_own:
        assert is_own

        @ray.remote
        def start() -> int:
            return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

        sleeper = psutil.Process(ray.get(start.remote()))
        assert sleeper.is_running()
    _, alive = psutil.wait_procs([sleeper], timeout=30)
    assert alive == []


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_a_ray_that_hangs_while_it_starts_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    me, before = psutil.Process(), processes()
    stopped = threading.Event()

    def stop_raylet() -> None:
        while not stopped.is_set():
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.name() == "raylet":
                        process.suspend()
                        stopped.set()
            time.sleep(0.01)

    stopper = threading.Thread(target=stop_raylet, daemon=True)
    stopper.start()
    try:
        with pytest.raises(RunError, match="Ray did not start on this machine: it takes longer than 6 s"):
            start_local(1, 6.0)
    finally:
        hung = stopped.is_set()
        stopped.set()
        stopper.join()
        ray.shutdown()
    assert hung
    assert processes() == before
