"""Starting a Ray that belongs to this process alone: within a time, or not at all."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil
import ray

from ray_rl.failures import RunError

START_S = 180.0
"""Longest time in which Ray may start, in seconds: a few, unless the machine is very busy. Ray's own limits follow the
clock on the wall, and one that is put back meanwhile leaves them without end."""
_HEAR_S = 5.0
_STORE_BYTES = 2**30
"""Object store: many times the episodes of an update."""
_SMALLEST_STORE_BYTES = 80 * 2**20
UNWATCHED = {"task_events_report_interval_ms": 0, "enable_metrics_collection": False, "event_stats": False}
"""System configuration of a Ray without a dashboard. Otherwise each task is reported to the head, which remembers the
last 100,000 of them, and every worker counts and times what its threads do, for nobody."""
_ORDINARY = {"worker_niceness": 0}
"""Ray's workers begin as ordinary processes, so that the learner, which is one of them, goes before those that sample:
these step back by themselves (`ray_rl.collect.worker`)."""


class _TooLongError(Exception):
    pass


def start_local(n_workers: int, limit_s: float = START_S) -> list[int]:
    """Start a Ray for this process alone; returns the processes that it consists of.

    The kernel ends the foremost of them with this process, and workers end soon after them. The agents, which try for a
    minute to tell somebody, are what has to be guarded.

    Args:
        n_workers: CPUs that it claims to have.
        limit_s: Longest time that this may take, in seconds.

    Raises:
        RunError: When it does not start; nothing of it is left then.
    """
    driver = psutil.Process()
    others = {process.pid for process in driver.children(recursive=True)}

    def its_processes() -> list[psutil.Process]:
        return [process for process in driver.children(recursive=True) if process.pid not in others]

    def kill() -> None:
        for process in its_processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    free_shm = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else _STORE_BYTES
    try:
        with _limited(limit_s, kill), _shut_down_at_ctrl_c(its_processes), _ctrl_c_later():
            ray.init(
                address="local",
                num_cpus=n_workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=max(_SMALLEST_STORE_BYTES, min(_STORE_BYTES, free_shm // 2)),
                _system_config={**UNWATCHED, **_ORDINARY},
            )
    except Exception as error:
        kill()
        cause = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise RunError(
            f"Ray did not start on this machine: {cause}. Is there memory, disk and CPU left, and does its clock stand "
            "still or jump? Ray's logs are in /tmp/ray/session_latest/logs; --collector executor does without Ray"
        ) from error
    return [process.pid for process in its_processes()]


@contextmanager
def _shut_down_at_ctrl_c(its_processes: Callable[[], list[psutil.Process]]) -> Iterator[None]:
    """End what has started when the user stops to wait: Ray's agents would try for a minute to tell somebody."""
    try:
        yield
    except KeyboardInterrupt:
        started = its_processes()
        ray.shutdown()
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        raise


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Hear Ctrl-C and SIGTERM at the end of the block.

    Ray that is torn out of its start at the wrong moment forgets a thread of its own, which crashes this process when
    it ends. A second signal is heard at once: Ray may hang.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard: list[int] = []

    def give_back() -> None:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            give_back()
            signal.raise_signal(number)

    for number in previous:
        signal.signal(number, note)
    try:
        yield
    finally:
        give_back()
        if len(heard) == 1:
            signal.raise_signal(heard[0])


@contextmanager
def ended(pids: Sequence[int]) -> Iterator[None]:
    """Shut a Ray down in the block: what its processes have started does not outlive it.

    Workers end when they notice that they are alone, which takes those that are in the midst of a task a second or so.

    Args:
        pids: From `start_local`.
    """
    workers = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            workers += psutil.Process(pid).children(recursive=True)
    try:
        yield
    finally:
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


@contextmanager
def _limited(limit_s: float, kill: Callable[[], None]) -> Iterator[None]:
    """Wait for so long and no longer.

    Most waits of Ray are loops in Python, which a signal ends in the main thread; others end half a minute after the
    process that they wait for was killed.
    """
    over = threading.Event()
    caller = threading.current_thread()
    in_charge = caller is threading.main_thread()

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLongError(f"it takes longer than {limit_s:g} s")

    def watch() -> None:
        if over.wait(limit_s):
            return
        if in_charge and caller.ident is not None:
            signal.pthread_kill(caller.ident, signal.SIGALRM)
            if over.wait(_HEAR_S):
                return
        kill()

    previous = signal.signal(signal.SIGALRM, stop) if in_charge else None
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        if in_charge:
            signal.signal(signal.SIGALRM, previous)
