from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ray_rl import doctor
from ray_rl.cli import main


def test_it_finds_this_machine_fit_and_saves_what_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "doctor.json"
    code = main(["doctor", "--run-dir", str(tmp_path / "runs"), "--json", str(target)])
    shown = capsys.readouterr().out
    findings = {finding["what"]: finding for finding in json.loads(target.read_text(encoding="utf-8"))["findings"]}
    for what in ("Python", "packages", "Ray", "ports", "shared memory", "open files", "threads", "CybORG", "simulator"):
        assert what in findings
        assert what in shown
    assert [f for f in findings.values() if f["level"] == "failure"] == []
    assert code == 0
    assert "1 nodes" in findings["Ray"]["found"]
    assert not (tmp_path / "runs").exists()


def test_an_address_where_nothing_answers_is_a_failure(tmp_path: Path) -> None:
    finding = doctor.examine(tmp_path, "127.0.0.1:1")[-1]
    assert finding.level == "failure"
    assert "ray start --head" in finding.remedy


def test_few_open_files_are_noticed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        finding = doctor._open_files()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert finding.level == "warning"
    assert "ulimit -n" in finding.remedy


def test_a_port_that_somebody_holds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(doctor, "_HEAD_PORTS", {port: "cluster"})
        finding = doctor._ports()
    assert finding.level == "warning"
    assert str(port) in finding.found


def test_the_wrong_cyborg_is_told_from_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "cyborg-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: cyborg\nVersion: 1.0\nSummary: Python web scraping framework\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    finding = doctor._cyborg()
    assert finding.level == "warning"
    assert "pip uninstall cyborg" in finding.remedy


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    finding = doctor._disk("disk of runs", Path("/proc/nowhere"))
    assert finding.level == "failure"
    assert doctor._disk("disk of runs", tmp_path / "a" / "b").level == "ok"


@pytest.mark.parametrize(("mode", "level"), [("disabled", "warning"), ("token", "ok")])
def test_a_cluster_that_lets_strangers_in_is_warned_of(mode: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = "ray.init(address='local', num_cpus=1).address_info['gcs_address']"
    script = f"import ray; print('at', {start}, flush=True); input()"
    env = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "a1" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        assert owner.stdout is not None
        address = next(line.split()[1] for line in owner.stdout if line.startswith("at "))
        monkeypatch.setenv("RAY_AUTH_TOKEN", "a1" * 32)  # what the user has must not be shown at the door
        finding = doctor._guard(address)
    finally:
        owner.communicate("\n")
    assert finding.level == level
    assert ("RAY_AUTH_MODE=token" in finding.remedy) == (level == "warning")
