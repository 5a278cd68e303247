"""Ctrl-C while processes are started."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from ray_rl.interruption import deaf_children


@pytest.fixture
def other_thread() -> Iterator[int]:
    """A thread that lives, and waits."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    assert thread.ident is not None
    yield thread.ident
    over.set()
    thread.join()


def start_while_it_is_sent(thread: int, here: socket.socket, reached: list[str]) -> None:
    """Stands for a start of processes during which another thread is sent Ctrl-C."""
    with deaf_children():
        signal.pthread_kill(thread, signal.SIGINT)
        assert here.recv(1) == bytes([signal.SIGINT])
        reached.append("end")


def test_ctrl_c_that_another_thread_hears_waits_until_the_processes_are_started(other_thread: int) -> None:
    reached: list[str] = []
    here, there = socket.socketpair()
    there.setblocking(False)
    before = signal.set_wakeup_fd(there.fileno())
    try:
        with pytest.raises(KeyboardInterrupt):
            start_while_it_is_sent(other_thread, here, reached)
    finally:
        signal.set_wakeup_fd(before)
        here.close()
        there.close()
    assert reached == ["end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
