"""What goes wrong on a cluster, really caused on hosts during a training: power, cable, learner, driver, head, disk.

Studies of minutes: run them with ``-m slow -n 0 -s`` to see what each fault cost.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from ray_rl.chaos.drill import differing_arrays, wrong_updates
from ray_rl.checkpoint import checkpoints_in, find_checkpoint, load_checkpoint
from ray_rl.config import TrainConfig
from ray_rl.trainer import train
from rig import HOME, Lan
from rig.launch import n_joined, prepare, shell, up, wait_for_workers, words

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]

N_WORKERS = 2
PER_UPDATE = 200
BITS = f"--seed 5 --total-episodes 2000000 --episodes-per-update {PER_UPDATE} --evaluate-every 0 --checkpoint-every 5"
WAIT_S = 600.0
ALLOWED_S = 25.0
"""What a fault may cost besides the share of the CPUs that are away."""


@pytest.fixture(scope="module")
def cluster(able_to_hold_hosts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """Once the kernels are compiled here, since every host would compile them at the same time."""
    short = {"total_episodes": 8, "episodes_per_update": 8, "evaluate_every": 0, "collector": "sequential"}
    where = {"run_dir": str(tmp_path_factory.mktemp("compiled") / "run")}
    train(TrainConfig.from_mapping(short | where, "test"))
    with Lan() as lan:
        prepare(lan)
        up(lan)
        yield lan


class Training:
    """``ray-rl train`` on the head, killed and gone on with; knows when each update was first seen."""

    def __init__(self, lan: Lan, name: str, flags: str, log: Path) -> None:
        self.lan = lan
        self.folder = lan["head"].disk / f"{HOME}/runs/{name}".removeprefix("/")
        self._command = f"exec ray-rl train --address auto --run-dir {HOME}/runs/{name} {flags}"
        self._log = log
        self._driver = self._start()
        self.seen_at: dict[int, float] = {}
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()

    def _start(self, more: str = "") -> Any:
        with self._log.open("a") as log:
            return self.lan["head"].start(words(f"{self._command} {more}"), stdout=log, stderr=subprocess.STDOUT)

    def rows(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8")
            return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return []

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")[-3000:]

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for row in self.rows():
                if "train/policy_loss" in row:
                    self.seen_at.setdefault(int(row["update"]), time.monotonic())

    def wait_for_updates(self, more: int) -> None:
        """Wait until so many more updates are recorded."""
        goal = max(list(self.seen_at), default=0) + more
        wait_until(lambda: max(self.seen_at, default=0) >= goal or self._driver.poll() is not None)
        assert max(self.seen_at, default=0) >= goal, self.said()

    def stop(self) -> None:
        """Press Ctrl-C: it finishes its update, saves and ends."""
        self.lan["head"].signal(self._driver, signal.SIGINT)
        self._driver.wait(WAIT_S)
        assert "--resume" in self.said(), self.said()

    def kill(self) -> None:
        self.lan["head"].signal(self._driver, signal.SIGKILL)
        self._driver.wait()

    def resume(self) -> None:
        self._driver = self._start("--resume auto")

    def kill_and_resume(self) -> None:
        self.kill()
        self.resume()

    def close(self) -> None:
        self._over.set()
        self._watch.join()
        if self._driver.poll() is None:
            self.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def kill_learner(lan: Lan) -> None:
    def learners() -> list[psutil.Process]:
        found = []
        for process in lan["head"].processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_LearnerProcess"):
                    found.append(process)
        return found

    wait_until(lambda: bool(learners()))
    for process in learners():
        process.kill()


def lose_power_and_return(lan: Lan, keep: Path) -> None:
    """The host comes back with its home folder as it was; the autoscaler starts its Ray again over SSH."""
    shutil.copytree(lan["w1"].disk / HOME.removeprefix("/"), keep, symlinks=True)
    lan["w1"].power_off()
    wait_until(lambda: n_joined(lan["head"]) == N_WORKERS - 1)
    lan.power_on("w1").put(keep, HOME)
    wait_for_workers(lan, N_WORKERS)


def be_cut_off_and_healed(lan: Lan) -> None:
    """Its Ray gives up when nobody answers; the autoscaler starts another once the host can be reached."""
    lan["w2"].cut()
    wait_until(lambda: n_joined(lan["head"]) == N_WORKERS - 1)
    lan["w2"].heal()
    wait_for_workers(lan, N_WORKERS)


def lose_the_head_and_return(training: Training) -> None:
    """All that runs on it dies at one moment; its disk stays. Whoever has the cluster file starts it again."""
    head = training.lan["head"]
    training.kill()
    for process in head.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() != "sshd":
                process.kill()
    assert n_joined(head) == 0
    up(training.lan)
    training.resume()


def disturb(training: Training, updates_between: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Cause all four faults, one after the other; returns when each began, and when all CPUs were back."""
    lan = training.lan
    moments = {}
    faults: dict[str, Callable[[], None]] = {
        "host without power": lambda: lose_power_and_return(lan, folder / "home"),
        "host cut off": lambda: be_cut_off_and_healed(lan),
        "learner killed": lambda: kill_learner(lan),
        "driver killed": training.kill_and_resume,
    }
    for name, cause in faults.items():
        training.wait_for_updates(updates_between)
        began = time.monotonic()
        cause()
        moments[name] = (began, time.monotonic())
        print(f"{name}: all CPUs back after {moments[name][1] - began:.1f} s", flush=True)
    return moments


@contextlib.contextmanager
def in_one_process(folder: Path, flags: str) -> Iterator[Path]:
    """The same training undisturbed, without a cluster, which keeps all of its checkpoints."""
    where = ["--collector", "sequential", "--run-dir", str(folder / "run"), "--keep-checkpoints", "100000"]
    command = [sys.executable, "-m", "ray_rl", "train", *flags.split(), *where]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as training:
        try:
            yield folder / "run" / "checkpoints"
        finally:
            training.kill()


def assert_bits_of_one_process(training: Training, flags: str, folder: Path) -> None:
    """Stop it, and hold it against the same training undisturbed, as far as it came."""
    training.stop()
    rows = training.rows()
    n_updates = load_checkpoint(find_checkpoint(training.folder)).update
    assert wrong_updates(rows, n_updates, PER_UPDATE) == []
    disturbed = checkpoints_in(training.folder / "checkpoints")[-2]  # the last one that was due
    with in_one_process(folder, flags) as undisturbed:
        wait_until(lambda: (undisturbed / disturbed.name / "checkpoint.json").exists())
        assert differing_arrays(undisturbed / disturbed.name, disturbed) == []
    print(f"{n_updates} updates, the bits of {disturbed.name} held against one process")


def test_a_disturbed_run_has_the_bits_of_an_undisturbed_one(cluster: Lan, tmp_path: Path) -> None:
    """As far as it came while all faults happened, so that it need not be longer than they take on a slow machine."""
    with contextlib.closing(Training(cluster, "bits", BITS, tmp_path / "output")) as training:
        disturb(training, 5, tmp_path)
        training.wait_for_updates(10)
        assert_bits_of_one_process(training, BITS, tmp_path)


def test_a_run_whose_head_was_lost_and_started_again_has_the_bits_too(cluster: Lan, tmp_path: Path) -> None:
    with contextlib.closing(Training(cluster, "head", BITS, tmp_path / "output")) as training:
        training.wait_for_updates(10)
        began = time.monotonic()
        lose_the_head_and_return(training)
        print(f"head lost: all CPUs back after {time.monotonic() - began:.1f} s", flush=True)
        training.wait_for_updates(10)
        print(f"and ten updates more after {time.monotonic() - began:.1f} s", flush=True)
        assert_bits_of_one_process(training, BITS, tmp_path)


def test_a_run_that_fills_the_heads_disk_keeps_what_is_saved_and_goes_on(cluster: Lan, tmp_path: Path) -> None:
    head, place = cluster["head"], f"{HOME}/small"
    mount = f"mkdir -p {place} && mount -t tmpfs -o size=900k,mode=700,uid=7777,gid=7777 small {place}"
    head.run(["bash", "-c", mount], root=True)
    n_updates = 100
    command = f"ray-rl train --address auto --run-dir {place}/run --seed 5 --evaluate-every 0 --checkpoint-every 2"
    command += f" --keep-checkpoints 100 --episodes-per-update {PER_UPDATE} --total-episodes {n_updates * PER_UPDATE}"
    ended = shell(head, command, check=False)
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "No space left on device" in ended.stderr
    saved = checkpoints_in(head.disk / f"{place}/run/checkpoints".removeprefix("/"))
    assert load_checkpoint(saved[-1]).update == 2 * len(saved)
    assert f"{saved[-1].name} is whole" in ended.stderr
    head.run(["mount", "-o", "remount,size=100m", place], root=True)
    shell(head, f"{command} --resume")
    folder = head.disk / f"{place}/run".removeprefix("/")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert wrong_updates(rows, n_updates, PER_UPDATE) == []


def test_what_faults_cost(cluster: Lan, tmp_path: Path) -> None:
    """With steps that wait, so that the CPUs of a host are its own share, whatever this machine has."""
    per_update = 16
    flags = f"--env latency --episode-steps 30 --max-staleness 1 --episodes-per-update {per_update} --seed 5"
    more = "--total-episodes 100000 --evaluate-every 0 --checkpoint-every 1 --episodes-per-chunk 1 --hidden-sizes 16"
    with contextlib.closing(Training(cluster, "cost", f"{flags} {more}", tmp_path / "output")) as training:
        training.wait_for_updates(10)
        first = max(training.seen_at)
        training.wait_for_updates(30)
        usual_s = (training.seen_at[first + 30] - training.seen_at[first]) / 30
        moments = disturb(training, 10, tmp_path)
        training.wait_for_updates(30)
        ended = time.monotonic()
        done = {update: at for update, at in training.seen_at.items() if at <= ended}
    began = moments["host without power"][0]
    n_done = sum(at > began for at in done.values())
    lost_s = (ended - began) - n_done * usual_s
    away_s = sum(moments[name][1] - moments[name][0] for name in ("host without power", "host cut off"))
    share_s = away_s / N_WORKERS
    longest = max(b - a for a, b in pairwise(sorted(done.values())))
    print(
        f"an update takes {usual_s:.2f} s; in {ended - began:.0f} s with four faults {n_done} were done: "
        f"{lost_s:.0f} s lost, {share_s:.0f} s of them the share of CPUs that were away ({away_s:.0f} s in all); "
        f"longest pause {longest:.1f} s"
    )
    assert lost_s <= share_s + ALLOWED_S * len(moments)
