"""Nothing of a collector outlives it: no process, nothing in shared memory, whatever its episodes were doing."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from itertools import islice

import psutil
import pytest
import ray
from collectors import ALL_COLLECTORS, requests_for, weights_for
from faulty_envs import ENV_ID, Faults

from ray_rl.collect.factory import make_collector
from ray_rl.config import CollectConfig, EnvConfig
from ray_rl.episodes import EpisodeError
from ray_rl.ray_runtime import connection

_ENV = EnvConfig(env=ENV_ID)


@pytest.mark.parametrize("name", ALL_COLLECTORS)
def test_nothing_is_left_after_an_error_with_episodes_under_way(name: str, faults: Faults) -> None:
    requests = requests_for(12)
    if name != "synchronous":
        faults.plant(requests[0], "raise")
    if name != "sequential":
        faults.plant(requests[1], "hang")
    shared_before = set(os.listdir("/dev/shm"))
    children_before = set(psutil.Process().children(recursive=True))
    config = CollectConfig.model_validate(
        {
            "collector": name,
            "n_workers": 2,
            "episodes_per_chunk": 1,
            "watchdog_s": 5 if name == "synchronous" else 300,
        }
    )
    with make_collector(config, _ENV) as collector:
        collector.publish(weights_for(_ENV), 0)
        collector.submit(requests)
        started = set(psutil.Process().children(recursive=True)) - children_before
        with pytest.raises(EpisodeError, match=r"no step 2 today|no answer for 5 s"):
            list(collector.completed())
        started |= set(psutil.Process().children(recursive=True)) - children_before
        assert started or name == "sequential"
    started = {process for process in started if "resource_tracker" not in _command(process)}
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    assert _left_in_shared_memory(shared_before) == set()


def _command(process: psutil.Process) -> str:
    """The command line; empty for a process that is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _left_in_shared_memory(before: set[str]) -> set[str]:
    """What stays there; what somebody else creates meanwhile goes away by itself."""
    deadline = time.monotonic() + 30
    while (left := set(os.listdir("/dev/shm")) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.mark.parametrize("ray_stays", [False, True])
def test_workers_are_killed_only_where_ray_goes_on(
    ray_stays: bool, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = []
    cancel = ray.cancel
    monkeypatch.setattr(ray, "cancel", lambda ref, force: (killed.append(force), cancel(ref, force=force)))
    requests = requests_for(3)
    faults.plant(requests[0], "hang")
    config = CollectConfig(collector="ray-tasks", n_workers=2, episodes_per_chunk=1)
    with connection(None, 2) if ray_stays else nullcontext(), make_collector(config, _ENV) as collector:
        collector.publish(weights_for(_ENV), 0)
        collector.submit(requests)
        assert len(list(islice(collector.completed(), 2))) == 2
    assert killed == ([True] if ray_stays else [])
