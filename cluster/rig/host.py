"""One host of the rig: commands on it, files, cable, power."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from rig.switch import GATEWAY, RigError, Switch

LAPTOP = "laptop"
"""Host from which a cluster is launched; it has no SSH server."""
USER = "ray"
HOME = "/home/ray"
KEY = f"{HOME}/.ssh/cluster_key"
"""On the laptop: the private key that all other hosts accept."""

_UID = 7777
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GONE_TIMEOUT_S = 30.0
_SSHD_CONFIG = """\
Port 22
HostKey /etc/ssh/rig_host_key
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
AuthorizedKeysFile .ssh/authorized_keys
MaxStartups 100
"""


class Host:
    """A host of a `Lan`; made there.

    Attributes:
        name: Its host name.
        address: Its address in the network.
    """

    def __init__(self, name: str, address: str, port: str, process: subprocess.Popen[str], switch: Switch) -> None:
        self.name = name
        self.address = address
        self._port = port
        self._process = process
        self._switch = switch
        self._first_pid = 0

    def command(self, words: Sequence[str], env: Mapping[str, str] | None = None, *, root: bool = False) -> list[str]:
        """The words that run `words` on this host, as its user in its home, in a fresh environment.

        Args:
            words: Program and arguments.
            env: Environment variables besides the usual ones.
            root: Run as root instead.
        """
        uid = 0 if root else _UID
        home = "/root" if root else HOME
        names = ("--mount", "--uts", "--ipc", "--net", "--pid")
        usual = {"HOME": home, "USER": "root" if root else USER, "PATH": _SYSTEM_PATH, "LANG": "C.UTF-8"}
        fresh = [f"{name}={value}" for name, value in {**usual, **(env or {})}.items()]
        become = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        # The command dies with nsenter, so whoever ends nsenter ends the command.
        return [
            *("nsenter", "--target", str(self._first_pid), *names, "--root", "--wd"),
            *("setpriv", *become, "--pdeathsig", "KILL", "env", "-i", "-C", home, *fresh, *words),
        ]

    def run(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        root: bool = False,
        stdin: str | None = None,
        timeout_s: float = 60.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host and wait for it.

        Raises:
            RigError: When it fails and `check` is set; holds the end of what it said.
            subprocess.TimeoutExpired: When it takes longer than `timeout_s`; it is ended then.
        """
        ended = subprocess.run(
            self.command(words, env, root=root),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and ended.returncode:
            said = (ended.stdout + ended.stderr).strip()[-3000:]
            raise RigError(f"{self.name}: {' '.join(words)[:200]} ended with {ended.returncode}:\n{said}")
        return ended

    def start(self, words: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Start a command on this host; `options` go to `subprocess.Popen`."""
        return subprocess.Popen(self.command(words, env), **{"stdin": subprocess.DEVNULL, "text": True, **options})

    def signal(self, process: subprocess.Popen[str], number: signal.Signals) -> None:
        """Send a signal to a command that `start` started (not to nsenter, which would not pass it on)."""
        for child in psutil.Process(process.pid).children():
            child.send_signal(number)

    @property
    def disk(self) -> Path:
        """What this host sees as ``/``, to be read from here."""
        return Path(f"/proc/{self._first_pid}/root")

    def processes(self) -> list[psutil.Process]:
        """Processes of this host, the first one left out; their numbers are those of the machine."""
        return psutil.Process(self._first_pid).children(recursive=True)

    def write(self, path: str, text: str, mode: int = 0o644, *, root: bool = False) -> None:
        """Write a file on this host; its folder is made."""
        script = 'umask 077; mkdir -p "$(dirname "$0")"; cat >"$0"; chmod "$1" "$0"'
        self.run(["bash", "-c", script, path, f"{mode:o}"], stdin=text, root=root)

    def put(self, source: Path, target: str, exclude: Sequence[str] = ()) -> None:
        """Copy a folder's content from the machine into a folder on this host.

        What lies under a mounted overlay must not change; so files that may change go in this way.
        """
        packed = subprocess.run(
            ["tar", "-C", str(source), *(f"--exclude={name}" for name in exclude), "-cf", "-", "."],
            capture_output=True,
            check=True,
        )
        unpack = ["bash", "-c", 'mkdir -p "$0" && tar -C "$0" --no-same-owner -xf -', target]
        subprocess.run(self.command(unpack), input=packed.stdout, check=True, capture_output=True)

    def hide(self, path: str) -> None:
        """Show this host an empty folder in place of one of the machine's."""
        self.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "hidden", path], root=True)

    def cut(self) -> None:
        """Pull the host's cable out: nothing arrives, nobody is told."""
        self._switch.cut(self._port)

    def heal(self) -> None:
        """Put the cable back, or make a slow link quick again."""
        self._switch.heal(self._port)

    def slow(self, mbit_per_s: float) -> None:
        """Let no more than this reach the host, in Mbit/s; the rest waits in line."""
        self._switch.slow(self._port, mbit_per_s)

    def power_off(self) -> None:
        """End the host as a power cut does: the cable first, so that no process says good-bye, then all processes."""
        if self.is_on:
            self.cut()
        self.end()

    def kill(self) -> None:
        """Kill the host's first process, which takes everything on it along; `end` waits for that."""
        self._process.kill()  # its child, the first process, is told to die with it

    def end(self) -> None:
        """Kill the host, and wait until it is gone."""
        self.kill()
        self._process.wait()
        gone_by = time.monotonic() + _GONE_TIMEOUT_S
        while self._first_pid and psutil.pid_exists(self._first_pid) and time.monotonic() < gone_by:
            time.sleep(0.01)

    @property
    def is_on(self) -> bool:
        """Whether the host runs."""
        return self._process.poll() is None

    def _boot(self) -> None:
        """Wait until the host's own view is built, then plug it in."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said != "ready\n":
            self._process.kill()
            raise RigError(f"{self.name} did not start: {(said + self._process.stdout.read()).strip()[-2000:]}")
        self._first_pid = psutil.Process(self._process.pid).children()[0].pid
        self._switch.plug_in(self._port, self._first_pid, self.address)
        for words in (
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
            # Leads nowhere, but Ray looks at it to find the host's own address.
            ("route", "add", "default", "via", GATEWAY),
        ):
            self.run(["ip", *words], root=True)

    def _start_sshd(self, public_key: str) -> None:
        self.write(f"{HOME}/.ssh/authorized_keys", public_key, 0o600)
        self.write("/etc/ssh/rig_sshd_config", _SSHD_CONFIG, root=True)
        make_key = "rm -f /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/rig_host_key"
        self.run(["bash", "-c", f"{make_key}; /usr/sbin/sshd -f /etc/ssh/rig_sshd_config"], root=True)
