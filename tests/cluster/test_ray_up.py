"""From nothing to a trained defender on several hosts and back to nothing, by the commands that a user types."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_rl.chaos.drill import differing_arrays, wrong_updates
from ray_rl.config import TrainConfig
from ray_rl.trainer import train
from rig import HOME, LAPTOP, Lan
from rig.environment import BIN
from rig.launch import DASHBOARD, down, n_joined, prepare, shell, tunnel, up

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

RUN = f"{HOME}/runs/first"
KNOCK = Path(__file__).with_name("knock.py")
EPISODES = 800
MANY_EPISODES = 20_000
PER_UPDATE = 200


def in_one_process(folder: Path, n_episodes: int) -> Path:
    """The same training without a cluster; it also compiles the kernels that the hosts are given."""
    values = {"seed": 3, "total_episodes": n_episodes, "episodes_per_update": PER_UPDATE, "evaluate_every": 0}
    where = {"run_dir": str(folder / "run"), "collector": "sequential"}
    return Path(str(train(TrainConfig.from_mapping(values | where, "test"))))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_one_process(tmp_path_factory.mktemp("alone"), EPISODES)


@pytest.fixture(scope="module")
def cluster(able_to_hold_hosts: None, alone: Path) -> Iterator[Lan]:
    """A head and two workers that `ray up` has joined, from the cluster file that is shipped."""
    with Lan() as lan:
        prepare(lan)
        up(lan)
        with tunnel(lan):
            yield lan


def submitted(lan: Lan, n_episodes: int) -> list[dict[str, Any]]:
    """Train by a submitted job; returns what it recorded."""
    flags = f"--seed 3 --evaluate-every 0 --episodes-per-update {PER_UPDATE} --total-episodes {n_episodes}"
    output = shell(lan[LAPTOP], f"ray-rl submit train {flags} --run-dir {RUN}").stdout
    assert f"run folder {RUN}" in output
    return [json.loads(line) for line in (run_folder(lan) / "metrics.jsonl").read_text("utf-8").splitlines()]


def run_folder(lan: Lan) -> Path:
    return lan["head"].disk / RUN.removeprefix("/")


def hosts_in(rows: list[dict[str, Any]]) -> float:
    """The most hosts on which the episodes of an update ran."""
    return max(row.get("data/hosts", 0) for row in rows)


def test_a_submitted_run_trains_on_every_worker_to_the_same_bits_as_one_process(cluster: Lan, alone: Path) -> None:
    rows = submitted(cluster, EPISODES)
    assert wrong_updates(rows, EPISODES // PER_UPDATE, PER_UPDATE) == []
    assert hosts_in(rows) == 2
    assert differing_arrays(alone, run_folder(cluster)) == []


def test_who_has_no_token_is_refused_at_every_door(cluster: Lan) -> None:
    """From another host; it reaches the dashboard through a tunnel alone, since that listens on the head's loopback."""
    laptop, head = cluster[LAPTOP], cluster["head"]
    token = laptop.run(["cat", f"{HOME}/.ray/auth_token"]).stdout
    arguments = [head.address, DASHBOARD, token]
    knocks = laptop.run([f"{BIN}/python", "-", *arguments], stdin=KNOCK.read_text(encoding="utf-8"), timeout_s=200)
    said: dict[str, dict[str, str]] = json.loads(knocks.stdout)
    assert {"dashboard", "jobs", "GCS", "client"} < said.keys()
    assert sum(door.startswith("raylet") for door in said) == 3
    for door, answers in said.items():
        assert answers["right"] in ("200", "OK"), (door, answers)
        for token in ("none", "wrong"):
            assert answers[token] in ("401", "403", "UNAUTHENTICATED"), (door, answers)
    for address in (head.address, cluster["w1"].address):
        assert laptop.run(["bash", "-c", f"</dev/tcp/{address}/8265"], check=False).returncode != 0
    refused = shell(laptop, f"ray-rl submit list --address {DASHBOARD}", token=False, check=False)
    assert refused.returncode == 2
    assert "token" in refused.stderr.lower()
    assert len(refused.stderr.splitlines()) == 1


def test_ray_down_ends_ray_on_the_head(cluster: Lan) -> None:
    assert n_joined(cluster["head"]) == 2
    down(cluster)
    assert not [p.name() for p in cluster["head"].processes() if p.name() in ("raylet", "gcs_server")]


class Timed:
    """What each part of the way takes, in seconds, in its order."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._began = time.monotonic()

    def done(self, part: str) -> None:
        """End a part; the next begins."""
        now = time.monotonic()
        self.parts[part] = now - self._began
        self._began = now


@pytest.mark.slow
def test_20_000_episodes_on_three_workers(able_to_hold_hosts: None, tmp_path: Path) -> None:
    """The whole way with one command; with ``-s`` it says how long each part takes."""
    alone = in_one_process(tmp_path, MANY_EPISODES)
    timed = Timed()
    with Lan([LAPTOP, "head", "w1", "w2", "w3"]) as lan:
        prepare(lan)
        timed.done("hosts")
        up(lan)
        timed.done("ray up until all have joined")
        with tunnel(lan):
            timed.done("tunnel")
            rows = submitted(lan, MANY_EPISODES)
            timed.done(f"{MANY_EPISODES} episodes by ray-rl submit")
        assert wrong_updates(rows, MANY_EPISODES // PER_UPDATE, PER_UPDATE) == []
        assert hosts_in(rows) == 3
        assert differing_arrays(alone, run_folder(lan)) == []
        down(lan)
        timed.done("ray down")
        assert "raylet" not in [p.name() for p in lan["head"].processes()]
    print(f"the job itself trained for {rows[-1]['time_s']:.0f} s; from nothing and back to nothing, in seconds:")
    print(*(f"{seconds:6.1f}  {part}" for part, seconds in timed.parts.items()), sep="\n")
    print(f"{sum(timed.parts.values()):6.1f}  in all")
