"""However a comparison ends, nothing of its processes stays: no process, nothing in shared memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ray_rl.config import CollectorName

_WORDS = [
    *("-m", "ray_rl", "compare", "--env", "latency", "--n-workers", "2", "--rounds", "1", "--seconds", "600"),
    *("--latency-mean-s", "0.005", "--methods"),
]
_SIGNS = ("spawn_main", "ray::collect_chunk", "ray::_Sampler.collect")
"""What the command line of a worker holds while it works."""


@pytest.mark.parametrize(
    ("method", "number"),
    [
        ("synchronous", signal.SIGINT),
        ("synchronous", signal.SIGKILL),
        ("executor", signal.SIGINT),
        ("executor", signal.SIGKILL),
        ("ray-actors", signal.SIGINT),
        ("ray-tasks", signal.SIGINT),
        ("ray-tasks", signal.SIGKILL),
    ],
)
def test_nothing_is_left_after_a_signal(method: CollectorName, number: signal.Signals, tmp_path: Path) -> None:
    with (tmp_path / "said").open("w") as said:
        command = [sys.executable, *_WORDS, method]
        driver = psutil.Popen(command, stdout=said, stderr=said, start_new_session=True)
        started = _wait_for_workers(driver)
        shared = _shared_memory_of(driver.pid)
        driver.send_signal(number)
        code = driver.wait(timeout=60)
    assert code == (1 if number == signal.SIGINT else -number)
    _, alive = psutil.wait_procs(started, timeout=40)  # less than Ray's agents take to give up by themselves
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    deadline = time.monotonic() + 30
    while (left := shared & set(os.listdir("/dev/shm"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == set()
    if number == signal.SIGINT:
        assert (tmp_path / "said").read_text().splitlines()[-1] == "stopped"


def _wait_for_workers(driver: subprocess.Popen[bytes]) -> set[psutil.Process]:
    """All descendants, once two of them are workers with some work behind them."""
    deadline = time.monotonic() + 120
    process = psutil.Process(driver.pid)
    while time.monotonic() < deadline:
        assert driver.poll() is None
        found = process.children(recursive=True)
        workers = [p for p in found if _works(p)]
        if len(workers) >= 2:
            return set(found)
        time.sleep(0.1)
    raise AssertionError("no workers")


def _shared_memory_of(pid: int) -> set[str]:
    """Names of what a process has mapped from shared memory: other programs have theirs there, too."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return {line.split("/dev/shm/")[1].split()[0] for line in lines if "/dev/shm/" in line}


def _works(process: psutil.Process) -> bool:
    try:
        return any(sign in word for word in process.cmdline() for sign in _SIGNS)
    except psutil.Error:
        return False


def test_what_was_measured_is_shown_and_saved_when_it_is_stopped(tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    words = [*_WORDS, "sequential", "--rounds", "1000", "--seconds", "0.2", "--json", str(saved)]
    driver = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.startswith("round 2 of 1000"):
            break
    driver.send_signal(signal.SIGTERM)  # raises what Ctrl-C raises
    shown, said = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert said.splitlines() == ["stopped"]
    assert "sequential" in shown
    assert "Where the time went" in shown
    comparison = json.loads(saved.read_text(encoding="utf-8"))
    assert comparison["stopped"]
    assert len(comparison["results"][0]["runs"]) >= 1
