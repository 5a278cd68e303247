"""The cables between hosts: a bridge in a network namespace that no other process sees."""

from __future__ import annotations

import subprocess

NETWORK = "10.77.0"
"""First three numbers of every address."""
GATEWAY = f"{NETWORK}.254"
DIE_WITH_ME = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: it is killed when the thread that started it ends."""


class RigError(RuntimeError):
    """The network or a host could not be made or changed: the message says which and why."""


class Switch:
    """A bridge in a network namespace that lives as long as a process of its own.

    Raises:
        RigError: When this machine gives no network namespace.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [*DIE_WITH_ME, "unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RigError("cannot make a network namespace")
        self._do("ip", "link", "add", "switch", "type", "bridge")
        self._do("ip", "addr", "add", f"{GATEWAY}/24", "dev", "switch")
        self._do("ip", "link", "set", "switch", "up")

    def plug_in(self, port: str, pid: int, address: str) -> None:
        """Connect the namespace of a process: ``eth0`` there, `port` here; the same card whenever that host starts."""
        card = f"02:00:00:00:{int(address.split('.')[2]):02x}:{int(address.split('.')[3]):02x}"
        if f" {port}@" in self._do(
            "ip", "-o", "link"
        ):  # of a former host: connections that were cut keep it for minutes
            self._do("ip", "link", "del", port)
        peer = ("peer", "name", "eth0", "address", card, "netns", str(pid))
        self._do("ip", "link", "add", port, "type", "veth", *peer)
        self._do("ip", "link", "set", port, "master", "switch", "up")

    def cut(self, port: str) -> None:
        """Let nothing through a port."""
        self._do("ip", "link", "set", port, "down")

    def heal(self, port: str) -> None:
        """Let everything through a port, as quickly as the machine can."""
        self._do("ip", "link", "set", port, "up")
        if "tbf" in self._do("tc", "qdisc", "show", "dev", port):
            self._do("tc", "qdisc", "del", "dev", port, "root")

    def slow(self, port: str, mbit_per_s: float) -> None:
        """Let no more than so much through a port to its host; the rest waits in line."""
        rate = ("rate", f"{mbit_per_s}mbit", "burst", "64kb", "latency", "2s")
        self._do("tc", "qdisc", "replace", "dev", port, "root", "tbf", *rate)

    def close(self) -> None:
        """End the network; hosts on it can reach nobody any more."""
        self._process.kill()
        self._process.wait()

    def _do(self, *words: str) -> str:
        command = ["nsenter", "--target", str(self._process.pid), "--net", *words]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RigError(f"{' '.join(words)}: {ended.stderr.strip()}")
        return ended.stdout
