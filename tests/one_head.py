"""A head node on this machine, started as `ray start` starts one, and ended process by process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

_START_TIMEOUT_S = 120.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def head_node(
    flags: Sequence[str],
    answers: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    *,
    gcs_port: int,
    node_ip: str = "127.0.0.1",
) -> Iterator[None]:
    """Run a head node that asks for no token; `answers` tells when it is up."""
    agent, client, grpc_agent = free_ports(3)
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--port={gcs_port}", f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        *(f"--dashboard-agent-grpc-port={grpc_agent}", f"--node-ip-address={node_ip}"),
        *("--object-store-memory=100000000", *flags),
    ]
    with tempfile.TemporaryDirectory(prefix="rj-", ignore_cleanup_errors=True) as folder:
        head = subprocess.Popen(
            [*command, f"--temp-dir={folder}"],
            env={
                **os.environ,
                "RAY_AUTH_MODE": "disabled",
                "RAY_worker_niceness": "0",
                # A machine with other things to do must not look dead.
                "RAY_agent_register_timeout_ms": "200000",
                "RAY_health_check_failure_threshold": "50",
                **(env or {}),
            },
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + _START_TIMEOUT_S
            while not answers():
                assert head.poll() is None, head.communicate()[0].decode()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield
        finally:
            started = psutil.Process(head.pid)
            family = [*started.children(recursive=True), started]
            head.terminate()
            _, alive = psutil.wait_procs(family, timeout=20)
            for process in alive:
                process.kill()
            psutil.wait_procs(alive, timeout=20)
