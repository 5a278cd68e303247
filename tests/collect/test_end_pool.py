"""Ending a pool of processes at the worst moment: one of them has sent half of what it has to say."""

from __future__ import annotations

import os
import signal
import sys
import threading

import psutil

from ray_rl.collect.executor import end_pool, make_pool


def a_large_result(n_bytes: int) -> bytes:
    return bytes(n_bytes)


def is_receiving(thread: threading.Thread) -> bool:
    """Whether a thread is reading a message of a pipe, which has begun to come in."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "_recv_bytes":
            return True
        frame = frame.f_back
    return False


def test_a_process_that_is_killed_while_it_sends_leaves_no_thread_that_waits_for_the_rest() -> None:
    pool = make_pool(1)
    future = pool.submit(a_large_result, 2**28)
    listener = pool._executor_manager_thread
    assert listener is not None
    assert pool._processes is not None
    (worker,) = pool._processes.values()
    while not is_receiving(listener):
        assert not future.done(), "the result was sent before anyone looked"
    os.kill(worker.pid, signal.SIGSTOP)
    while psutil.Process(worker.pid).status() != psutil.STATUS_STOPPED:
        pass
    assert not future.done(), "the result was sent before the process was stopped"
    end_pool(pool)
    assert not listener.is_alive()
    assert not psutil.pid_exists(worker.pid)
