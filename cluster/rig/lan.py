"""A network of hosts on one Linux machine.

A host is a set of namespaces (network, mounts, processes, names, IPC): its own address, its own copy-on-write disk over
the machine's, its own /tmp, /dev/shm and process table, a user ``ray`` with an empty home, and an SSH server. The
switch between them is a bridge in a network namespace of its own, so the machine's links, routes, firewall and keys are
never touched, nothing leaves the network, and several of them stand side by side with the same addresses.

Nothing has a name or a place outside these namespaces, and the kernel ends a namespace with its processes. Those are
told to die with the process that made them. So everything is gone when that process ends, whichever way it ends: there
is nothing to clean up after a crash.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rig.host import HOME, KEY, LAPTOP, Host
from rig.switch import DIE_WITH_ME, NETWORK, RigError, Switch

_TOOLS = ("ip", "tc", "unshare", "nsenter", "setpriv", "rsync", "ssh", "ssh-keygen", "/usr/sbin/sshd")
_OWN_FOLDERS = (("home",), ("tmp",))
"""What a host has in place of the machine's, as the first parts of a path after the root."""
_TRIAL_OF_A_HOST = """\
mount -t tmpfs trial /mnt && mkdir /mnt/upper /mnt/work /mnt/root &&
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work trial /mnt/root &&
ip link add bridge0 type bridge && ip link add port0 type veth peer name port1 && tc qdisc add dev port0 root tbf \
    rate 1mbit burst 64kb latency 1s
"""


def missing_needs() -> list[str]:
    """What this machine lacks to hold hosts; empty when nothing."""
    if sys.platform != "linux":
        return ["Linux"]
    missing = [] if os.geteuid() == 0 else ["root"]
    missing += [Path(tool).name for tool in _TOOLS if shutil.which(tool) is None]
    if not missing:
        namespaces = ("--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--propagation", "private")
        trial = ["unshare", *namespaces, "sh", "-c", _TRIAL_OF_A_HOST]
        if subprocess.run(trial, capture_output=True, check=False).returncode:
            missing = ["the right to make namespaces, overlays and bridges"]
    return missing


class Lan:
    """Hosts with a switch between them; a context manager. Use it from the main thread: all ends with its thread.

    Args:
        names: Hosts; the one called ``laptop`` has no SSH server, and a key that the others accept.
        disk: Room for what a host writes, as tmpfs counts it (``4g``).
        shm: Size of a host's /dev/shm.

    Raises:
        RigError: When this machine cannot hold hosts; nothing is left behind.
    """

    def __init__(
        self, names: Sequence[str] = (LAPTOP, "head", "w1", "w2"), *, disk: str = "6g", shm: str = "2g"
    ) -> None:
        missing = missing_needs()
        if missing:
            raise RigError(f"this machine lacks {', '.join(missing)}; cluster/rig/install_needs.sh installs it")
        self._disk, self._shm = disk, shm
        servers = [name for name in names if name != LAPTOP]
        self._numbers = {LAPTOP: 1} | {name: 10 + i for i, name in enumerate(servers)}
        self._public_key = ""
        self._hosts: dict[str, Host] = {}
        self._switch = Switch()
        try:
            self._start(names)
        except BaseException:
            self.close()
            raise

    def _start(self, names: Sequence[str]) -> None:
        hosts = [self._make(name) for name in names]  # all build their view at once
        self._hosts.update({host.name: host for host in hosts})
        for host in hosts:
            host._boot()
        if LAPTOP in self._hosts:
            make_key = f"mkdir -m 700 {HOME}/.ssh && ssh-keygen -q -t ed25519 -N '' -f {KEY} && cat {KEY}.pub"
            self._public_key = self._hosts[LAPTOP].run(["bash", "-c", make_key]).stdout
        for host in hosts:
            self._finish(host)

    def _make(self, name: str) -> Host:
        namespaces = ("--net", "--mount", "--pid", "--uts", "--ipc", "--propagation", "private")
        process = subprocess.Popen(
            [
                *(*DIE_WITH_ME, "unshare", *namespaces, "--fork", "--kill-child=KILL"),
                *("bash", str(Path(__file__).with_name("host_init.sh")), name, self._disk, self._shm),
                *_to_be_shown(),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        number = self._numbers[name]
        return Host(name, f"{NETWORK}.{number}", f"port{number}", process, self._switch)

    def _finish(self, host: Host) -> None:
        lines = [f"{NETWORK}.{number} {name}" for name, number in self._numbers.items()]
        host.write("/etc/hosts", "\n".join(["127.0.0.1 localhost", *lines]) + "\n", root=True)
        if host.name != LAPTOP:
            host._start_sshd(self._public_key)

    def power_on(self, name: str) -> Host:
        """Start a host that was powered off again, with an empty disk, its name and its address."""
        if self._hosts[name].is_on:
            raise RigError(f"{name} is on")
        host = self._hosts[name] = self._make(name)
        host._boot()
        self._finish(host)
        return host

    def __getitem__(self, name: str) -> Host:
        """The host of a name."""
        return self._hosts[name]

    @property
    def hosts(self) -> list[Host]:
        """All hosts, in the order they were named."""
        return list(self._hosts.values())

    def close(self) -> None:
        """End all hosts and the switch; safe to call twice."""
        for host in self._hosts.values():
            host.kill()
        for host in self._hosts.values():
            host.end()
        self._switch.close()

    def __enter__(self) -> Self:
        """Return the network itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _to_be_shown() -> list[str]:
    """Folders that hosts need and would not see: on other file systems than /, or where hosts have their own."""
    root = os.stat("/").st_dev
    needed = (Path(sys.prefix).parent, Path(sys.base_prefix), Path(__file__).resolve().parents[2])
    return sorted({str(path) for path in needed if path.stat().st_dev != root or path.parts[1:2] in _OWN_FOLDERS})
