"""Checks of what `ray up` needs, here and over SSH on the machines of a cluster, before it is tried."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from ray_rl.doctor import Finding

_CONNECT_S = 10
_ANSWER_S = 60.0
_DISK_BYTES = 4 * 2**30
"""Free space that a machine needs: the environment takes 2 GiB, Ray's session and checkpoints some more."""
_OLDEST_PYTHON = (3, 11)
_AT_ONCE = 32
_TOKEN = "auth_token"
_LOOK = """\
echo "python=$(python3 --version 2>&1)"
echo "rsync=$(command -v rsync)"
echo "free=$(df -Pk ~ | awk 'NR == 2 {print $4}')"
echo "cpus=$(nproc)"
echo "ray=$(~/ray_rl/.venv/bin/python -c 'from importlib.metadata import version; print(version("ray"))' 2>/dev/null)"
if touch ~/.ray_rl_trial 2>/dev/null; then rm ~/.ray_rl_trial; echo writable=yes; fi
"""


def examine_files(sent: Sequence[str], key: Path | None) -> list[Finding]:
    """Look for what `ray up` needs on this machine; it starts a head first, and then fails on what is missing.

    Args:
        sent: Files and folders that go to every machine; relative ones are looked for from here.
        key: Private SSH key; None for SSH's own choice.

    Returns:
        One finding for each that is missing.
    """
    found = []
    for name in sent:
        if not Path(name).expanduser().exists():
            remedy = "start from the project's top folder, or take the line out of file_mounts"
            if Path(name).name == _TOKEN:
                remedy = f"make it: ray get-auth-token --generate && chmod 600 {name}"
            found.append(Finding(name, "failure", "does not exist, and file_mounts sends it", remedy))
    if key is not None and not key.exists():
        remedy = f"make it: ssh-keygen -t ed25519 -N '' -f {key}; your own machines get it by ssh-copy-id -i {key}.pub"
        found.append(Finding(str(key), "failure", "does not exist, and auth.ssh_private_key names it", remedy))
    return found


def examine_hosts(head: str, workers: Sequence[str], user: str, key: Path | None) -> list[Finding]:
    """Look at every machine as `ray up` will: log in, find Python, rsync, room, and other versions than elsewhere.

    Args:
        head: Address of the head; the workers are held against it.
        workers: Addresses of the workers.
        user: Who logs in.
        key: Private SSH key; None for SSH's own choice.

    Returns:
        One finding for each, the head first.
    """
    addresses = (head, *workers)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        seen = list(pool.map(lambda address: _look(address, user, key), addresses))
    at_head = seen[0] if isinstance(seen[0], dict) else None
    return [
        _judge(f"{'head' if i == 0 else 'worker'} {address}", said, at_head)
        for i, (address, said) in enumerate(zip(addresses, seen, strict=True))
    ]


def _look(address: str, user: str, key: Path | None) -> dict[str, str] | str:
    """What a machine says of itself, or why it cannot be asked."""
    options = ("BatchMode=yes", f"ConnectTimeout={_CONNECT_S}", "StrictHostKeyChecking=no", "LogLevel=ERROR")
    identity = () if key is None else ("-i", str(key), "-o", "IdentitiesOnly=yes")
    command = ["ssh", *(w for o in (*options, "UserKnownHostsFile=/dev/null") for w in ("-o", o)), *identity]
    remote = f"bash --login -c -i {shlex.quote(_LOOK)}"  # as Ray runs its commands there
    target = f"{user}@{address}" if user else address
    try:
        answer = subprocess.run(
            [*command, target, remote], capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except FileNotFoundError:
        return "this machine has no ssh"
    except subprocess.TimeoutExpired:
        return f"no answer within {_ANSWER_S:.0f} s"
    said = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    if "cpus" not in said:
        return (answer.stderr.strip().splitlines() or [f"ssh ended with {answer.returncode}"])[-1]
    return said


def _judge(what: str, said: dict[str, str] | str, head: dict[str, str] | None) -> Finding:
    if isinstance(said, str):
        remedy = "start its SSH server, and let auth.ssh_user log in with auth.ssh_private_key"
        return Finding(what, "failure", said, remedy)
    free_bytes = int(said["free"] or 0) * 1024
    found = f"{said['python']}, {said['cpus']} CPUs, {free_bytes / 2**30:.1f} GiB free"
    if problem := _problem(said, head, free_bytes):
        return Finding(what, "failure", f"{found}; {problem[0]}", problem[1])
    ray = said["ray"]
    if ray and ray != version("ray"):
        return Finding(
            what, "warning", f"{found}, Ray {ray}", f"ray up replaces it by {version('ray')}, which takes minutes"
        )
    return Finding(what, "ok", f"{found}, {f'Ray {ray}' if ray else 'Ray not installed yet: ray up does it'}")


def _problem(said: dict[str, str], head: dict[str, str] | None, free_bytes: int) -> tuple[str, str] | None:
    """What stands in the way of `ray up` on a machine, and the remedy; None when nothing does."""
    python = re.fullmatch(r"Python (\d+)\.(\d+)\S*", said["python"])
    if python is None:
        return "it finds no python3", "install Python 3.11 or newer there"
    if (int(python[1]), int(python[2])) < _OLDEST_PYTHON:
        return "its Python is too old", "install Python 3.11 or newer there, first on the PATH of ~/.bashrc"
    if head is not None and said["python"] != head["python"]:
        return f"the head has {head['python']}", "Ray wants one version everywhere: install the same on both"
    if not said["rsync"]:
        return "it has no rsync", "install rsync there"
    if "writable" not in said:
        return "its home folder cannot be written", "free room there, or check the folder's rights"
    if free_bytes < _DISK_BYTES:
        return "its disk is full", f"free {_DISK_BYTES / 2**30:.0f} GiB in the home folder"
    return None
