"""`ray-rl doctor --cluster`: files that would not work, and hosts that would not."""

from __future__ import annotations

import json
import signal
import sysconfig
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from ray_rl.cli import main
from ray_rl.ray_cluster_file import read_cluster_file
from ray_rl.ssh_hosts import examine_files
from rig import HOME, LAPTOP, Host, Lan
from rig.environment import PROJECT, install_environment, install_project
from rig.launch import CONFIG, cluster_file, shell

SHIPPED = Path(__file__).parents[2] / "cluster" / "on-prem.yaml"
WORKERS = "worker_ips: [192.0.2.11, 192.0.2.12]"


def test_the_shipped_file_is_read() -> None:
    cluster = read_cluster_file(SHIPPED)
    assert (cluster.head, cluster.workers) == ("192.0.2.10", ("192.0.2.11", "192.0.2.12"))
    assert (cluster.user, cluster.key) == ("ray", Path("~/.ssh/cluster_key").expanduser())


@pytest.mark.parametrize(
    ("shown", "instead", "says"),
    [
        ("rsync_exclude:", "rsync_exclud:", "rsync_exclud"),
        ("ssh_user:", "ssh_usr:", "ssh_usr"),
        (WORKERS, "worker_ips: []", "names no machine"),
        (WORKERS, "", "names no machine"),
        (WORKERS, "worker_ips: [192.0.2.11, 192.0.2.11]", "192.0.2.11 more than once"),
        (WORKERS, "worker_ips: [192.0.2.10]", "192.0.2.10 is head_ip and among worker_ips"),
        ("head_ip: 192.0.2.10", "", "as head_ip"),
        ("cluster_name: ray_rl", "cluster_name: ray_rl\nmin_workers: 3", "min_workers is 3, but worker_ips names 2"),
        ("type: local", "type: lokal", "lokal"),
        ("provider:", "provided:", "has no 'provider'"),
        ("auth:", "auth: [", "no YAML file"),
    ],
)
def test_a_file_that_would_not_work_is_one_clear_error(
    shown: str, instead: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert shown in text
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace(shown, instead, 1))
    assert main(["doctor", "--cluster", str(file)]) == 2
    errors = capsys.readouterr().err
    assert str(file) in errors
    assert says in errors
    assert len(errors.splitlines()) == 1


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--cluster", str(tmp_path / "none.yaml")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_what_is_missing_here_is_named_before_a_cloud_is_asked(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    key = tmp_path / "key"
    missing = {
        finding.what: finding.remedy
        for finding in examine_files([str(tmp_path / "there"), "~/no/auth_token", "no"], key)
    }
    assert missing.keys() == {"~/no/auth_token", "no", str(key)}
    assert "ray get-auth-token --generate" in missing["~/no/auth_token"]
    assert f"ssh-keygen -t ed25519 -N '' -f {key}" in missing[str(key)]


@pytest.fixture
def ill(able_to_hold_hosts: None) -> Iterator[Lan]:
    """A head in good health, and workers that each lack something."""
    with Lan([LAPTOP, "head", "no-ssh", "full", "old-ray", "old-python"]) as lan:
        for name in (LAPTOP, "head", "old-ray", "full"):
            install_environment(lan[name])
        install_project(lan[LAPTOP])
        lan[LAPTOP].write(f"{PROJECT}/{CONFIG}", cluster_file(lan))
        for process in lan["no-ssh"].processes():
            if process.name() == "sshd":
                process.send_signal(signal.SIGKILL)
        fill_home(lan["full"])
        change_ray(lan["old-ray"], "1.0.0")
        lan["old-python"].write(f"{HOME}/bin/python3", "#!/bin/sh\necho Python 3.12.1\n", 0o755)
        lan["old-python"].write(f"{HOME}/.bash_profile", f"export PATH={HOME}/bin:$PATH\n")
        yield lan


def fill_home(host: Host) -> None:
    """Give a home folder a disk of its own, of which every byte is taken."""
    script = """
    cp -a /home/ray /tmp/home && mount -t tmpfs -o size=1m,mode=700,uid=7777,gid=7777 small /home/ray
    cp -a /tmp/home/.ssh /tmp/home/.bashrc /tmp/home/.bash_profile /home/ray && ! cat /dev/zero >/home/ray/data
    """
    host.run(["bash", "-c", script], root=True)


def change_ray(host: Host, to: str) -> None:
    """Let a host's packages hold another Ray; they may be shown to it read-only."""
    about = f"{sysconfig.get_path('purelib')}/ray-{version('ray')}.dist-info/METADATA"
    script = 'sed "s/^Version: .*/Version: $1/" "$0" >/run/other_ray && mount --bind /run/other_ray "$0"'
    host.run(["bash", "-c", script, about, to], root=True)


@pytest.mark.cluster
def test_each_host_that_would_not_work_is_named_with_the_reason(ill: Lan) -> None:
    ended = shell(ill[LAPTOP], f"ray-rl doctor --cluster {CONFIG} --json found.json", check=False)
    assert ended.returncode == 1, ended.stderr
    rows = json.loads(ill[LAPTOP].run(["cat", f"{PROJECT}/found.json"]).stdout)["findings"]
    found = {row["what"].split()[-1]: row for row in rows}
    assert "--generate" in found["~/.ray/auth_token"]["remedy"]
    assert "ray_rl" not in found  # what is sent and is there
    level = {name: found[ill[name].address]["level"] for name in ("head", "no-ssh", "full", "old-ray", "old-python")}
    assert level == {
        "head": "ok",
        "no-ssh": "failure",
        "full": "failure",
        "old-ray": "warning",
        "old-python": "failure",
    }
    assert f"Ray {version('ray')}" in found[ill["head"].address]["found"]
    assert "refused" in found[ill["no-ssh"].address]["found"]
    assert "its disk is full" in found[ill["full"].address]["found"]
    assert "Ray 1.0.0" in found[ill["old-ray"].address]["found"]
    assert "the head has Python 3.11" in found[ill["old-python"].address]["found"]
