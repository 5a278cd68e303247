"""Trainings as jobs of a real cluster: sent, followed, stopped, listed, resumed; and addresses that are not Ray's."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from one_head import free_ports, head_node

from ray_rl.checkpoint import checkpoints_in, load_checkpoint
from ray_rl.cli import main
from ray_rl.config import TrainConfig
from ray_rl.envs.cyborg.find import package_folder
from ray_rl.trainer import train

_SMALL = {
    "total_episodes": 64,
    "episodes_per_update": 16,
    "episode_steps": 30,
    "hidden_sizes": [16],
    "minibatches": 2,
    "evaluate_every": 0,
    "checkpoint_every": 1,
}
_WORDS = [
    word
    for name, value in _SMALL.items()
    for word in (f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, list) else (str(value),)))
]


@pytest.fixture(scope="session")
def dashboard() -> Iterator[str]:
    """The address of the dashboard of a one-machine cluster, on which this package is not installed."""
    gcs, http = free_ports(2)
    address = f"http://127.0.0.1:{http}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        flags = [f"--dashboard-port={http}", "--num-cpus=2"]
        with head_node(flags, lambda: _takes_jobs(address), {"PYTHONPATH": ""}, gcs_port=gcs):
            yield address


def _takes_jobs(address: str) -> bool:
    from ray.job_submission import JobSubmissionClient

    try:
        JobSubmissionClient(address).list_jobs()
    except (RuntimeError, ConnectionError):
        return False
    return True


def submit(dashboard: str, *words: str) -> int:
    python = () if words[0] not in ("train", "resume") else ("--python", sys.executable)
    return main(["submit", *words, *python, "--address", dashboard])


def network_of(run_dir: Path) -> dict[str, np.ndarray]:
    return dict(load_checkpoint(checkpoints_in(run_dir / "checkpoints")[-1]).arrays)


def test_a_job_trains_on_its_cluster_with_the_package_from_here(
    dashboard: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert submit(dashboard, "train", *_WORDS, "--run-dir", str(run_dir)) == 0
    output = capfd.readouterr().out
    assert "done: 4 updates" in output
    job_id = re.findall(r"raysubmit_\w+", output)[0]
    here = train(TrainConfig.from_mapping(_SMALL | {"run_dir": str(tmp_path / "here"), "collector": "sequential"}, "t"))
    for name, values in network_of(Path(str(here))).items():
        np.testing.assert_array_equal(values, network_of(run_dir)[name], err_msg=name)
    assert submit(dashboard, "follow", job_id) == 0
    assert "done: 4 updates" in capfd.readouterr().out
    table = tmp_path / "jobs.json"
    assert submit(dashboard, "list", "--json", str(table)) == 0
    row = next(row for row in json.loads(table.read_text())["jobs"] if row["id"] == job_id)
    assert (row["status"], row["run_dir"], row["exit_code"]) == ("SUCCEEDED", str(run_dir), 0)


def test_the_exit_code_is_that_of_the_run(dashboard: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    assert submit(dashboard, "train", *_WORDS, "--run-dir", str(tmp_path / "run")) == 2
    assert "is not empty and holds no run" in capfd.readouterr().out


def test_a_python_that_the_head_does_not_have_is_named(
    dashboard: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "train", *_WORDS, "--run-dir", str(tmp_path / "run"), "--python", "/nowhere/python"]
    assert main([*words, "--address", dashboard]) == 127
    assert "name one there with --python" in capfd.readouterr().err


def test_ctrl_c_saves_a_run_which_is_resumed_and_stopped(
    dashboard: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    words = [*_WORDS, "--run-dir", str(run_dir), "--total-episodes", "1000000", "--python", sys.executable]
    with subprocess.Popen(
        [sys.executable, "-m", "ray_rl", "submit", "train", *words, "--address", dashboard],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        job_id = client.stdout.readline().split()[0]
        wait_for_update(run_dir, 1)
        assert submit(dashboard, "resume", job_id) == 2
        assert "stop it first" in capfd.readouterr().err
        client.send_signal(signal.SIGINT)
        _, errors = client.communicate(timeout=200)
    assert client.returncode == 1, errors
    assert f"ray-rl submit resume {job_id}" in errors
    saved = load_checkpoint(checkpoints_in(run_dir / "checkpoints")[-1]).update
    assert recorded_updates(run_dir) == list(range(1, saved + 1))  # it ended its update and saved that

    assert submit(dashboard, "resume", job_id, "--detach") == 0
    second = re.findall(r"raysubmit_\w+", capfd.readouterr().out)[0]
    wait_for_update(run_dir, saved + 1)
    assert submit(dashboard, "stop", second) == 0
    assert submit(dashboard, "follow", second) == 1
    gone_on = load_checkpoint(checkpoints_in(run_dir / "checkpoints")[-1]).update
    assert recorded_updates(run_dir) == list(range(1, gone_on + 1))


def wait_for_update(run_dir: Path, update: int) -> None:
    deadline = time.monotonic() + 200
    while not any(path.name >= f"update_{update:06}" for path in checkpoints_in(run_dir / "checkpoints")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def recorded_updates(run_dir: Path) -> list[int]:
    return [json.loads(line)["update"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_job_that_is_unknown_is_named(dashboard: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(dashboard, "follow", "raysubmit_nobody") == 2
    assert "has no job raysubmit_nobody" in capsys.readouterr().err


@pytest.mark.cyborg
def test_cyborg_travels_with_a_job(dashboard: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkout = os.environ.get("RAY_RL_CYBORG_PATH")
    if checkout is None:
        pytest.skip("RAY_RL_CYBORG_PATH names no folder of a checkout of CybORG 2.1")
    package = tmp_path / "checkout" / "CybORG"
    shutil.copytree(package_folder(checkout), package)
    run_dir = tmp_path / "run"
    cyborg = ["--env", "cyborg", "--cyborg-path", str(package.parent)]
    short = ["--total-episodes", "4", "--episodes-per-update", "4", "--episode-steps", "5"]
    assert submit(dashboard, "train", *_WORDS, *cyborg, *short, "--run-dir", str(run_dir), "--detach") == 0
    package.rename(tmp_path / "out of the cluster's sight")
    assert submit(dashboard, "follow", re.findall(r"raysubmit_\w+", capfd.readouterr().out)[0]) == 0
    assert load_checkpoint(checkpoints_in(run_dir / "checkpoints")[-1]).spec.name.startswith("cyborg")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train"], "needs --run-dir"),
        (["train", "--run-dir", "runs/x"], "is relative"),
        (["train", "--run-dir", "/x", "--epochs", "0"], "epochs"),
        (["train", "--run-dir", "/x", "--env", "cyborg", "--cyborg-path", "/nowhere"], "--cyborg-path /nowhere"),
        (["trian"], "did you mean 'train'"),
    ],
)
def test_bad_input_is_found_here(
    dashboard: str, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *words, "--address", dashboard]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert len(errors.splitlines()) == 1


class _WebPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(params=["web page", "silent", "closed"])
def not_ray(request: pytest.FixtureRequest) -> Iterator[str]:
    """HOST:PORT of something that is not Ray."""
    if request.param == "web page":
        server = HTTPServer(("127.0.0.1", 0), _WebPage)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()
    elif request.param == "silent":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
    else:
        yield f"127.0.0.1:{free_ports(1)[0]}"


@pytest.mark.parametrize("command", ["submit", "train"])
def test_an_address_where_no_ray_answers_is_one_clear_error(
    not_ray: str,
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray_rl.ray_jobs._ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setattr("ray_rl.ray_runtime._CONNECT_TIMEOUT_S", 1.0)
    words = ["submit", "list"] if command == "submit" else ["train", "--run-dir", str(tmp_path / "run")]
    assert main([*words, "--address", not_ray]) == 2
    errors = capsys.readouterr().err
    assert not_ray in errors
    assert "answers at --address" in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "run").exists()
