"""What a host of the rig needs to take part in a Ray cluster: the project's environment, as an earlier set-up left it.

The packages are the machine's own, so nothing is downloaded; the project itself is not among them: it has to arrive on
a host by whatever the test is about.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

from ray_rl.kernel_cache import keep_kernels
from rig.host import HOME, Host

PROJECT = f"{HOME}/ray_rl"
"""Where hosts keep the project."""
BIN = f"{PROJECT}/.venv/bin"

_CHECKOUT = Path(__file__).resolve().parents[2]
_COMMANDS = ("ray", "ray-rl", "tensorboard")
_INSTALL = """\
set -eu
python3 -m venv --without-pip "$0/.venv"
cat >"$0/.venv/$1/machine.pth"
for command in $2; do
    { echo "#!$0/.venv/bin/python"; tail -n +2 "$3/$command"; } >"$0/.venv/bin/$command"
    chmod 755 "$0/.venv/bin/$command"
done
printf %s\\\\n "$4" >"$0/.venv/stamp"
"""


def install_environment(host: Host) -> None:
    """Give a host ``~/ray_rl/.venv``, current for ``scripts/setup.sh``, and this process's Python on its PATH."""
    base = Path(sys.base_prefix) / "bin"
    host.write(f"{HOME}/.bashrc", f"export PATH={base}:$PATH\n")
    host.write(f"{HOME}/.bash_profile", "source ~/.bashrc\n")
    machine = sysconfig.get_path("purelib")
    inside = Path(machine).relative_to(sys.prefix)
    host.run(
        ["bash", "-c", _INSTALL, PROJECT, str(inside), " ".join(_COMMANDS), f"{sys.prefix}/bin", _stamp()],
        env={"PATH": f"{base}:/usr/bin:/bin"},
        stdin=f"{PROJECT}\n{machine}\n",
    )


def install_kernels(host: Host) -> None:
    """Give a host the kernels that were compiled on this machine, as an earlier run leaves them."""
    folder = keep_kernels(_CHECKOUT / "ray_rl")
    host.put(folder / "shared", f"{HOME}/.cache/ray_rl/kernels/{folder.name}/shared")


def install_project(host: Host) -> None:
    """Copy the checkout to ``~/ray_rl``, as `git` would: without what is ignored."""
    host.put(_CHECKOUT, PROJECT, exclude=(".git", ".venv", "runs", "__pycache__", "*.egg-info", ".*_cache", "tests"))


def _stamp() -> str:
    """What ``scripts/setup.sh`` writes into an environment that is current."""
    text = (_CHECKOUT / "pyproject.toml").read_bytes() + (_CHECKOUT / "constraints.txt").read_bytes()
    python = subprocess.run([f"{sys.base_prefix}/bin/python3", "--version"], capture_output=True, check=True).stdout
    return hashlib.sha256(text + f"{PROJECT}\n".encode() + python).hexdigest()
