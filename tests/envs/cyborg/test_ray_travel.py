"""On a cluster CybORG travels with the job: workers find it though they do not see the driver's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cyborg

PROGRAM = """
import json, shutil, sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from ray_rl.collect.factory import make_collector
from ray_rl.config import CollectConfig, EnvConfig
from ray_rl.envs.registry import make_env
from ray_rl.episodes import episode_requests
from ray_rl.policy.random_weights import random_weights

folder, rules = sys.argv[1], sys.argv[2]
config = EnvConfig.model_validate({"env": "cyborg", "cyborg_path": folder, "rules": rules, "episode_steps": 10})
spec = make_env(config).spec
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
with make_collector(CollectConfig(collector="ray-tasks", address=cluster.address, n_workers=1), config) as collector:
    Path(folder).rename(folder + " out of the workers' sight")
    collector.publish(random_weights(spec.observation_size, (8,), spec.n_actions), 0)
    collector.submit(episode_requests(0, 0, 2, red_agent="B_lineAgent", max_steps=10))
    returns = [ray.get(chunk.batch).returns().tolist() for chunk in collector.completed()]
cluster.shutdown()
print(json.dumps(sum(returns, [])))
"""


def test_workers_of_a_cluster_run_a_cyborg_that_only_the_driver_saw(
    cyborg_path: str, rules: str, tmp_path: Path
) -> None:
    from ray_rl.envs.cyborg.find import package_folder

    (tmp_path / "checkout").mkdir()
    copy = ["cp", "-r", str(package_folder(cyborg_path)), str(tmp_path / "checkout")]
    subprocess.run(copy, check=True)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "checkout"), rules],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert len(json.loads(ended.stdout.strip().splitlines()[-1])) == 2
