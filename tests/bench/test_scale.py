"""The cost model of many nodes: known answers; and the study itself on two nodes of this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_rl.bench.cost_model import INLINE_BYTES, CostModel, fit_line
from ray_rl.cli import main
from ray_rl.collect.api import Chunk
from ray_rl.config import EnvConfig
from ray_rl.failures import RunError

MODEL = CostModel(
    worker_s_per_episode=2.0,
    episodes_per_chunk=4,
    episode_bytes=1024.0,
    driver_idle_share=0.1,
    driver_s_per_chunk=0.001,
    fetch_s_per_chunk=0.004,
    fetch_s_per_byte=0.0,
    learn_s_per_episode=0.005,
)


def limits(model: CostModel) -> dict[str, float]:
    return {limit.part: limit.episodes_per_s for limit in model.limits()}


def test_each_part_is_full_where_its_time_for_a_second_of_episodes_is_a_second() -> None:
    assert limits(MODEL) == pytest.approx({"learner": 200, "driver": 3600, "object store": 25_000})
    assert [limit.part for limit in MODEL.limits()] == ["learner", "driver", "object store"]


def test_larger_chunks_relieve_the_driver_and_once_they_are_stored_the_store() -> None:
    larger = replace(MODEL, episodes_per_chunk=400, fetch_s_per_byte=1e-8)
    stored_bytes = 400 * 1024
    assert stored_bytes > INLINE_BYTES
    assert limits(larger)["driver"] == pytest.approx(360_000)
    assert limits(larger)["object store"] == pytest.approx(400 / (0.004 + 1e-8 * stored_bytes))


def test_workers_set_the_rate_until_driver_or_store_is_full_and_the_driver_never_exceeds_a_core() -> None:
    assert MODEL.collected_per_s(100) == pytest.approx(50)
    assert MODEL.driver_share(100) == pytest.approx(0.1 + 0.001 * 50 / 4)
    assert MODEL.collected_per_s(1_000_000) == pytest.approx(3600)
    assert MODEL.driver_share(1_000_000) == pytest.approx(1.0)
    slow_store = replace(MODEL, fetch_s_per_chunk=1.0)
    assert slow_store.collected_per_s(1_000_000) == pytest.approx(100)


def test_a_line_is_found_again_and_never_starts_below_zero() -> None:
    assert fit_line([1, 2, 5], [0.5, 0.7, 1.3]) == pytest.approx((0.3, 0.2))
    start, slope = fit_line([10, 20], [1.0, 3.0])
    assert start == 0
    assert slope == pytest.approx((10 * 1 + 20 * 3) / (100 + 400))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--nodes", "2", "1"], "--nodes takes ascending numbers from 1, not '2 1'"),
        (["--nodes", "0"], "--nodes takes ascending numbers"),
        (["--workers-per-node", "0"], "--workers-per-node must be more than 0, not 0"),
        (["--seconds", "-1"], "--seconds must be more than 0"),
        (["--nodes", "100000"], "--nodes 100000 with 6 workers each: about "),
        (["--json", "/nowhere/scale.json"], "cannot write --json"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(flags: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", *flags]) == 2
    assert says in capsys.readouterr().err


def test_workers_that_do_not_start_leave_what_is_measured_already(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_rl.bench import ray_scale

    class StuckLoad:
        n_workers = 0

        def __init__(self, *_: Any) -> None: ...

        def warm_up(self, n_workers: int) -> None:
            if n_workers > 12:
                raise RunError("only 13 of 24 workers answered")

        def close(self) -> None: ...

    row = ray_scale.ScaleRow(1, 6, 5.0, 1.0, 0.1, 0.2)
    monkeypatch.setattr(ray_scale, "Load", StuckLoad)
    monkeypatch.setattr(ray_scale, "add_nodes", lambda *_: [])
    monkeypatch.setattr(ray_scale, "_lacking_bytes", lambda *_: 0)
    monkeypatch.setattr(ray_scale, "_measure", lambda load, nodes, _: replace(row, nodes=nodes))
    rows, not_run = ray_scale._measure_nodes(None, ray_scale.ScaleSettings(nodes=(1, 2, 4, 8)), lambda _: None)
    assert [row.nodes for row in rows] == [1, 2]
    assert not_run == [(4, "only 13 of 24 workers answered"), (8, "only 13 of 24 workers answered")]
    with pytest.raises(RunError, match="only 13 of 24"):
        ray_scale._measure_nodes(None, ray_scale.ScaleSettings(nodes=(4, 8)), lambda _: None)


def test_the_more_workers_start_the_longer_they_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_rl.bench import ray_load

    class NobodyAnswers:
        def __init__(self, *_: Any) -> None: ...

        def publish(self, *_: Any) -> None: ...

        def submit(self, *_: Any) -> None: ...

        def completed(self, timeout_s: float) -> list[Chunk]:
            return []

    monkeypatch.setattr(ray_load, "RayTasksCollector", NobodyAnswers)
    monkeypatch.setattr(ray_load, "_START_S", 0.25)
    monkeypatch.setattr(ray_load, "_START_S_PER_WORKER", 0.125)
    load = ray_load.Load(EnvConfig(env="latency"), 1, 6)
    with pytest.raises(RunError, match=r"only 0 of 6 workers answered within 1 s"):
        load.warm_up(6)


@pytest.mark.slow
def test_two_nodes_collect_about_twice_as_much_as_one(tmp_path: Path) -> None:
    words = ["bench", "scale", "--nodes", "1", "2", "--workers-per-node", "2", "--seconds", "10"]
    assert main([*words, "--json", str(tmp_path / "scale.json")]) == 0
    scale = json.loads((tmp_path / "scale.json").read_text())
    assert [row["workers"] for row in scale["rows"]] == [2, 4]
    assert scale["not_run"] == []
    first, second = (row["episodes_per_s"] for row in scale["rows"])
    assert 1.5 < second / first < 2.5
    assert {limit["part"] for limit in scale["model"]["limits"]} == {"driver", "object store", "learner"}
    assert 0 < scale["full_driver"]["chunk_thread_share"] <= scale["full_driver"]["chunk_driver_share"]
