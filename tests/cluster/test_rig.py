"""The hosts that the other tests stand on: apart from each other and from this machine, cut, slow, dead, and gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rig import KEY, Host, Lan, RigError

pytestmark = pytest.mark.cluster

OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5")
SSH = ("ssh", "-i", KEY, *(f"-o{option}" for option in OPTIONS))
MEGABYTES = 3


def reaches(host: Host, address: str) -> bool:
    """Whether a connection to another host's SSH server opens."""
    return host.run(["timeout", "2", "bash", "-c", f"</dev/tcp/{address}/22"], check=False).returncode == 0


def test_hosts_are_reached_by_ssh_under_their_own_names_and_addresses(lan: Lan) -> None:
    assert lan["head"].address == "10.77.0.10"
    for name in ("head", "w1", "w2"):
        said = lan["laptop"].run([*SSH, f"ray@{lan[name].address}", "hostname; id -un; hostname -I"]).stdout.split()
        assert said == [name, "ray", lan[name].address]


def test_files_memory_and_processes_are_each_hosts_own(lan: Lan) -> None:
    for folder in ("/tmp", "/dev/shm", "~"):
        lan["w1"].run(["bash", "-c", f"touch {folder}/mine"])
        there = [h.name for h in lan.hosts if h.run(["bash", "-c", f"ls {folder}/mine"], check=False).returncode == 0]
        assert there == ["w1"]
    assert not Path("/tmp/mine").exists()
    asleep = lan["w1"].start(["sleep", "600"])
    try:
        seen = {
            h.name: h.run(["bash", "-c", "grep -lz ^sleep$ /proc/[0-9]*/cmdline | wc -l"]).stdout for h in lan.hosts
        }
        own = {p.pid for p in lan["w1"].processes()}
    finally:
        asleep.kill()
        asleep.wait()
    alone = {name: int(count) for name, count in seen.items()}
    assert alone["w1"] == alone["w2"] + 1  # every host's first process sleeps too
    assert os.getpid() not in own
    assert {"sshd", "sleep"} <= {psutil.Process(pid).name() for pid in own if psutil.pid_exists(pid)} | {"sleep"}


def test_nothing_of_the_machine_is_writable_or_personal(lan: Lan) -> None:
    head = lan["head"]
    assert head.run(["touch", "/usr/bin/mine"], check=False).returncode != 0
    head.run(["touch", "/usr/bin/mine"], root=True)
    assert not Path("/usr/bin/mine").exists()
    assert head.run(["bash", "-c", "ls -A ~/.ssh ~/.ray"], root=True, check=False).stdout == ""


def test_a_cut_cable_is_silent_and_heals(lan: Lan) -> None:
    assert reaches(lan["head"], lan["w1"].address)
    lan["w1"].cut()
    try:
        assert not reaches(lan["head"], lan["w1"].address)
        assert reaches(lan["head"], lan["w2"].address)
    finally:
        lan["w1"].heal()
    assert reaches(lan["head"], lan["w1"].address)


def test_a_slow_link_takes_its_time_and_heals(lan: Lan) -> None:
    send = f"head -c {MEGABYTES}M /dev/zero | {' '.join(SSH)} ray@{lan['w1'].address} 'wc -c'"

    def seconds() -> float:
        started = time.perf_counter()
        assert int(lan["laptop"].run(["bash", "-c", send]).stdout) == MEGABYTES * 2**20
        return time.perf_counter() - started

    mbit_per_s = 16.0
    lan["w1"].slow(mbit_per_s)
    try:
        slow = seconds()
    finally:
        lan["w1"].heal()
    at_least = MEGABYTES * 2**20 * 8 / (mbit_per_s * 1e6)
    assert slow > at_least * 0.9  # the cap is the kernel's: no load of the machine makes the link quicker
    lan["w1"].heal()  # healing what is whole changes nothing


def test_a_host_without_power_is_gone_and_comes_back_empty(lan: Lan) -> None:
    first = lan["w2"]
    first.run(["touch", "mine"])
    processes = first.processes()
    first.power_off()
    assert not first.is_on
    assert not any(process.is_running() for process in processes)
    assert not reaches(lan["head"], first.address)
    with pytest.raises(RigError, match="w1 is on"):
        lan.power_on("w1")
    again = lan.power_on("w2")
    assert again.run(["ls"]).stdout == ""
    assert lan["laptop"].run([*SSH, f"ray@{again.address}", "hostname"]).stdout == "w2\n"


def test_a_command_that_fails_or_hangs_says_so_and_leaves_nothing(lan: Lan) -> None:
    with pytest.raises(RigError, match=r"head: bash -c .* ended with 3:\nno such luck"):
        lan["head"].run(["bash", "-c", "echo no such luck; exit 3"])
    with pytest.raises(subprocess.TimeoutExpired):
        lan["head"].run(["sleep", "611"], timeout_s=0.5)
    assert gone_within_s(10, lambda: not any("611" in p.cmdline() for p in alive(lan["head"].processes())))


def test_everything_is_gone_when_its_maker_is_killed(able_to_hold_hosts: None) -> None:
    make = (
        "import sys, signal; from rig import Lan; lan = Lan(['laptop', 'head']);"
        "lan['head'].start(['sleep', '612']); print('made', flush=True); signal.pause()"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "cluster")}
    maker = subprocess.Popen([sys.executable, "-c", make], stdout=subprocess.PIPE, text=True, env=env)
    assert maker.stdout is not None
    assert maker.stdout.readline() == "made\n"
    made = psutil.Process(maker.pid).children(recursive=True)
    assert len(made) > 4
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert gone_within_s(20, lambda: not alive(made))
    assert "rig-root" not in Path("/proc/mounts").read_text(encoding="utf-8")
    assert "port10" not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    living = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def gone_within_s(seconds: float, condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
