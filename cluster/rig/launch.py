"""A Ray cluster on the rig's hosts, launched as a user launches one: ``ray up`` from the laptop, over SSH."""

from __future__ import annotations

import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rig.environment import BIN, PROJECT, install_environment, install_kernels, install_project
from rig.host import HOME, LAPTOP, Host
from rig.lan import Lan
from rig.switch import RigError

CONFIG = "cluster/on-prem.yaml"
"""The cluster file on the laptop, below the project's folder."""
DASHBOARD = "http://127.0.0.1:8265"
"""Of the head, seen from there, or from the laptop through a `tunnel`."""
_SHOWN = Path(__file__).resolve().parents[1] / "on-prem.yaml"
_HEAD_IP = "head_ip: 192.0.2.10"
_WORKER_IPS = "worker_ips: [192.0.2.11, 192.0.2.12]"
_UP_TIMEOUT_S = 420.0
_TUNNEL_TIMEOUT_S = 60.0
_POLL_S = 1.0
_COUNT_WORKERS = """\
import json, pathlib, sys, urllib.request
token = pathlib.Path("~/.ray/auth_token").expanduser().read_text().strip()
request = urllib.request.Request(sys.argv[1] + "/nodes?view=summary", headers={"Authorization": f"Bearer {token}"})
nodes = [node["raylet"] for node in json.load(urllib.request.urlopen(request, timeout=30))["data"]["summary"]]
print(sum(node["state"] == "ALIVE" and not node["isHeadNode"] for node in nodes))
"""


def prepare(lan: Lan) -> None:
    """Give hosts what an earlier set-up and run leave, and the laptop the project, a token and the cluster file."""
    for host in lan.hosts:
        install_environment(host)
    for host in workers(lan):
        install_kernels(host)
    laptop = lan[LAPTOP]
    install_project(laptop)
    laptop.write(f"{HOME}/.ray/auth_token", secrets.token_hex(32), 0o600)
    laptop.write(f"{PROJECT}/{CONFIG}", cluster_file(lan))


def cluster_file(lan: Lan) -> str:
    """The cluster file that is shipped, with the addresses of these hosts."""
    text = _SHOWN.read_text(encoding="utf-8")
    for shown, own in ((_HEAD_IP, f"head_ip: {lan['head'].address}"), (_WORKER_IPS, f"worker_ips: {_addresses(lan)}")):
        if text.count(shown) != 1:
            raise RigError(f"{_SHOWN} does not say {shown!r}")
        text = text.replace(shown, own)
    return text


def _addresses(lan: Lan) -> str:
    return f"[{', '.join(host.address for host in workers(lan))}]"


def workers(lan: Lan) -> list[Host]:
    """All hosts but the laptop and the head."""
    return [host for host in lan.hosts if host.name not in (LAPTOP, "head")]


def words(command: str, *, token: bool = True) -> list[str]:
    """A shell command in the project's folder with its environment, with or without the cluster's token."""
    mode = "token" if token else "disabled"
    setup = f"export PATH={BIN}:$PATH RAY_AUTH_MODE={mode} RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1"
    return ["bash", "--login", "-c", f"{setup}; cd {shlex.quote(PROJECT)} && {command}"]


def shell(
    host: Host, command: str, *, token: bool = True, timeout_s: float = _UP_TIMEOUT_S, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a shell command as `words` says, and wait for it.

    Raises:
        RigError: When it fails and `check` is set.
    """
    return host.run(words(command, token=token), timeout_s=timeout_s, check=check)


def up(lan: Lan) -> None:
    """``ray up``, and wait until all workers have joined.

    Raises:
        RigError: When they have not after some minutes.
    """
    shell(lan[LAPTOP], f"ray up -y {CONFIG}")
    wait_for_workers(lan, len(workers(lan)))


def wait_for_workers(lan: Lan, count: int) -> None:
    """Wait until so many workers are there; ``ray up`` itself returns when the head is.

    Raises:
        RigError: When they are not after some minutes.
    """
    until = time.monotonic() + _UP_TIMEOUT_S
    while (joined := n_joined(lan["head"])) != count:
        if time.monotonic() > until:
            why = shell(lan["head"], "tail -n 40 /tmp/ray/session_latest/logs/monitor.out", check=False).stdout
            raise RigError(f"{joined} workers have joined after {_UP_TIMEOUT_S:.0f} s, not {count}:\n{why}")
        time.sleep(_POLL_S)


def n_joined(head: Host) -> int:
    """Workers that have joined and are alive, as the head sees them."""
    answer = head.run([f"{BIN}/python", "-c", _COUNT_WORKERS, DASHBOARD], check=False)
    return int(answer.stdout) if answer.returncode == 0 else 0


@contextmanager
def tunnel(lan: Lan) -> Iterator[None]:
    """The head's dashboard at the laptop's own port, by ``ray dashboard``.

    Raises:
        RigError: When it does not open.
    """
    laptop = lan[LAPTOP]
    forward = laptop.start(words(f"exec ray dashboard {CONFIG}"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + _TUNNEL_TIMEOUT_S
        while laptop.run(["bash", "-c", "</dev/tcp/127.0.0.1/8265"], check=False).returncode:
            if forward.poll() is not None or time.monotonic() > until:
                forward.kill()
                raise RigError(f"no tunnel: {forward.communicate()[0][-2000:]}")
            time.sleep(_POLL_S / 4)
        yield
    finally:
        forward.kill()
        forward.wait()


def down(lan: Lan) -> None:
    """``ray down``."""
    shell(lan[LAPTOP], f"ray down -y {CONFIG}")
