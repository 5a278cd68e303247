"""Comparing the methods: figures that add up, rows that fail alone, advice that follows from the figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ray_rl.bench.machine import this_machine
from ray_rl.cli import main
from ray_rl.collect.api import Chunk
from ray_rl.collect.factory import make_collector
from ray_rl.collect.sequential import SequentialCollector
from ray_rl.compare.measure import MethodRun, TimeShares, _wait_until_all_work, measure_method
from ray_rl.compare.report import advice, figures, scaling, shares, to_markdown
from ray_rl.compare.study import (
    Comparison,
    MethodName,
    MethodResult,
    Study,
    check_memory,
    open_collector,
    recommended_workers,
)
from ray_rl.config import CollectConfig, CollectorName, EnvConfig, UserError
from ray_rl.episodes import EpisodeRequest, episode_requests
from ray_rl.policy.random_weights import random_weights
from ray_rl.ray_runtime import connection
from ray_rl.seeding import Purpose

LATENCY = EnvConfig(env="latency", latency_mean_s=0.002, latency_max_s=0.008, episode_steps=20)


def run_of(episodes_per_s: float, **changes: object) -> MethodRun:
    run = MethodRun(
        n_episodes=100,
        wall_s=100 / episodes_per_s,
        startup_s=1.0,
        pss_bytes=2**30,
        ideal_episode_s=None,
        shares=TimeShares(0.5, 0.2, 0.1, 0.05, 0.15),
        weights_bytes_per_update=1000.0,
        episode_bytes=10.0,
        mean_step_s=0.0,
        slowest_step_s=0.0,
    )
    return replace(run, **changes)  # type: ignore[arg-type]


def comparison_of(*results: tuple[CollectorName, int, tuple[float, ...]], env: EnvConfig | None = None) -> Comparison:
    made = tuple(MethodResult(method, n, tuple(map(run_of, speeds))) for method, n, speeds in results)
    counts = tuple(sorted({n for method, n, _ in results if method != "sequential"}))
    study = Study(tuple(dict.fromkeys(m for m, _, _ in results)), env or EnvConfig(), counts, 1000)
    return Comparison(this_machine(), study, "some environment", 1000, made)


@pytest.mark.parametrize("method", ["sequential", "synchronous", "executor"])
def test_a_measurement_accounts_for_all_of_its_time(method: CollectorName) -> None:
    n_workers = 1 if method == "sequential" else 3
    run = measure_method(
        make_collector(CollectConfig(collector=method, n_workers=n_workers), LATENCY),
        LATENCY,
        random_weights(52, (8,), 145),
        n_workers=n_workers,
        n_episodes=120,
        seconds=30.0,
        n_updates=2,
        seed=0,
    )
    s = run.shares
    assert s.stepping + s.inference + s.barriers + s.weights + s.rest == pytest.approx(1.0, abs=0.02)
    assert run.ideal_episode_s == pytest.approx(20 * 0.002, rel=0.15)
    assert run.episodes_per_s * run.ideal_episode_s <= n_workers
    assert (s.barriers > 0) == (method == "synchronous")
    assert (run.slowest_step_s > run.mean_step_s) == (method == "synchronous")


def weights_bytes(method: MethodName, hidden_sizes: tuple[int, ...], n_workers: int, n_episodes: int) -> float:
    """Share of the policy's bytes that an update serialises, as `compare` measures it."""
    env = LATENCY.model_copy(update={"episode_steps": 2})
    weights = random_weights(52, hidden_sizes, 145)
    run = measure_method(
        open_collector(env, method, n_workers),
        env,
        weights,
        n_workers=n_workers,
        n_episodes=n_episodes,
        seconds=30.0,
        n_updates=1,
        seed=0,
    )
    return run.weights_bytes_per_update / weights.n_bytes


class LateSecondWorker(SequentialCollector):
    """A second worker that brings its first episode when the first one has brought eight sets of them."""

    n_brought = 0

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        for chunk in super().completed(timeout_s):
            self.n_brought += len(chunk.summary.indices)
            yield replace(chunk, summary=replace(chunk.summary, pid=1 if self.n_brought <= 8 * 20 else 2))


def test_the_clock_waits_for_the_last_worker_however_much_the_others_bring() -> None:
    requests = episode_requests(0, 0, 20, red_agent=LATENCY.red_agent, max_steps=1, purpose=Purpose.BENCH)
    with LateSecondWorker(LATENCY) as collector:
        collector.publish(random_weights(52, (8,), 145), 0)
        with pytest.raises(UserError, match="1 of 2 workers brought an episode within 0 s"):
            _wait_until_all_work(collector, requests, 2, limit_s=0.02)
        collector.n_brought = 0
        _wait_until_all_work(collector, requests, 2)
        assert 8 * 20 < collector.n_brought < 9 * 20, "began before the second worker, or after more than was needed"


class EagerCollector(SequentialCollector):
    """Has run all episodes when `submit` returns, as workers do some while many are handed to them."""

    def __init__(self, env: EnvConfig) -> None:
        super().__init__(env)
        self.ready: list[Chunk] = []

    def submit(self, requests: Sequence[EpisodeRequest]) -> None:
        super().submit(requests)
        self.ready += super().completed()

    def completed(self, timeout_s: float | None = None) -> Iterator[Chunk]:
        while self.ready:
            yield self.ready.pop(0)


def test_what_finishes_while_episodes_are_handed_out_takes_time_as_well() -> None:
    env = LATENCY.model_copy(update={"episode_steps": 5})
    run = measure_method(
        EagerCollector(env),
        env,
        random_weights(52, (8,), 145),
        n_workers=1,
        n_episodes=100,
        seconds=30.0,
        n_updates=1,
        seed=0,
    )
    assert 100 <= run.n_episodes < 110
    assert 0.5 < run.shares.stepping < 1.1, "at most the ten that warm up were run before the clock"


def test_workers_that_bring_nothing_are_waited_for_until_the_time_is_up() -> None:
    env = LATENCY.model_copy(update={"latency_mean_s": 50.0, "latency_max_s": 100.0})
    requests = episode_requests(0, 0, 4, red_agent=env.red_agent, max_steps=20, purpose=Purpose.BENCH)
    with make_collector(CollectConfig(collector="executor", n_workers=2), env) as collector:
        collector.publish(random_weights(52, (8,), 145), 0)
        with pytest.raises(
            UserError, match="0 of 2 workers brought an episode within 0 s: ask for fewer workers or fewer --ep"
        ):
            _wait_until_all_work(collector, requests, 2, limit_s=0.2)


def test_weights_are_serialised_once_per_update_whatever_the_policy_the_workers_and_the_episodes() -> None:
    assert weights_bytes("executor", (64, 64), 1, 30) == weights_bytes("executor", (64, 64), 2, 60) == 1
    with connection(None, 2):
        for hidden_sizes in ((64, 64), (1500, 1500)):
            few, many = (weights_bytes("ray-tasks", hidden_sizes, n, 30 * n) for n in (1, 2))
            assert few == many == pytest.approx(1, abs=0.01)
    assert weights_bytes("naive", (64, 64), 1, 30) > 10


def test_efficiency_is_against_the_sequential_pace_or_the_environments_own() -> None:
    comparison = comparison_of(("sequential", 1, (10.0, 12.0, 11.0)), ("executor", 4, (22.0, 33.0, 44.0)))
    assert comparison.efficiency(comparison.results[1]) == pytest.approx(33 / 11 / 4)
    own = MethodResult("ray-tasks", 4, (run_of(30.0, ideal_episode_s=0.1),))
    assert comparison.efficiency(own) == pytest.approx(30 * 0.1 / 4)
    alone = comparison_of(("executor", 4, (22.0,)))
    assert alone.efficiency(alone.results[0]) is None


def test_the_tables_show_medians_spread_and_speed_up() -> None:
    comparison = comparison_of(("sequential", 1, (10.0, 12.0, 11.0)), ("ray-tasks", 4, (22.0, 33.0, 44.0)))
    row = dict(zip(figures(comparison)[0], figures(comparison)[2], strict=True))
    assert row["episodes/s"] == "33.0 (22.0-44.0)"
    assert row["speed-up"] == "3.00×"
    assert row["efficiency"] == "75.0%"
    assert row["100,000 episodes"] == "50.5 min"
    assert row["memory"] == "1.00 GiB"
    assert "published" not in row
    assert shares(comparison)[1][2:7] == ["50.0%", "20.0%", "10.0%", "5.0%", "15.0%"]
    text = to_markdown(comparison)
    assert "| ray-tasks | 4 | 33.0 (22.0-44.0) |" in text
    assert "python" in text


def test_the_published_figures_stand_beside_100_waiting_workers() -> None:
    comparison = comparison_of(("executor", 100, (70.0,)), ("ray-tasks", 100, (72.0,)), env=LATENCY)
    rows = [dict(zip(figures(comparison)[0], row, strict=True)) for row in figures(comparison)[1:]]
    assert rows[0]["published"].startswith("74.3")
    assert rows[1]["published"] == "–"


def test_advice_follows_the_figures() -> None:
    slow_ray = comparison_of(("executor", 2, (20.0,)), ("ray-tasks", 2, (10.0,)))
    fast_ray = comparison_of(("executor", 2, (10.0,)), ("ray-tasks", 2, (20.0,)))
    assert {row[0]: row[1] for row in advice(slow_ray)}["the most episodes on one machine"].startswith("executor")
    assert {row[0]: row[1] for row in advice(fast_ray)}["the most episodes on one machine"].startswith("ray-task")
    assert {row[0]: row[1] for row in advice(slow_ray)}["to add machines later"].startswith("ray-tasks")


def test_the_recommended_number_of_workers_is_the_smallest_that_nearly_reaches_the_best() -> None:
    comparison = comparison_of(
        ("executor", 1, (10.0,)), ("executor", 2, (19.5,)), ("executor", 4, (20.0,)), ("executor", 8, (19.0,))
    )
    assert recommended_workers(comparison.results) == 2
    assert scaling(comparison)[1][0] == "executor"
    assert scaling(comparison)[1][-1] == "2"


_ENV_OF_ONE_PROCESS = """
import multiprocessing, os, sys
import gymnasium, numpy

class Env(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), numpy.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return numpy.zeros(3, numpy.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3 and (multiprocessing.parent_process() or "default_worker" in sys.argv[0]):
            FAULT
        return numpy.zeros(3, numpy.float32), 1.0, self.steps == 5, False, {}

gymnasium.register("ID", Env)
"""


@pytest.mark.parametrize(
    ("method", "fault", "cause"),
    [
        ("executor", "raise RuntimeError('no licence for a second process')", "RuntimeError: no licence for a second"),
        ("synchronous", "os._exit(3)", "its worker process died"),
        ("ray-tasks", "raise RuntimeError('no licence here')", "RuntimeError: no licence here"),
    ],
)
def test_an_environment_that_fails_in_one_method_costs_that_row_alone(
    method: str,
    fault: str,
    cause: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    module, env_id = f"env_of_one_process_{method}", f"OneProcess-{method}-v0"
    (tmp_path / f"{module}.py").write_text(_ENV_OF_ONE_PROCESS.replace("FAULT", fault).replace("ID", env_id))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    saved, written = tmp_path / "saved.json", tmp_path / "written.md"
    words = ["--methods", method, "sequential", "--env", f"{module}:{env_id}", "--n-workers", "1", "--rounds", "2"]
    words += ["--seconds", "0.2", "--episodes", "400", "--json", str(saved), "--markdown", str(written)]
    assert main(["compare", *words]) == 0
    results = {result["method"]: result for result in json.loads(saved.read_text(encoding="utf-8"))["results"]}
    failure = results[method]["failure"]
    assert re.match(rf"episode \d+: {re.escape(cause)}", failure)
    assert results[method]["runs"] == []
    assert len(results["sequential"]["runs"]) == 2
    assert f"{method}, 1 worker: {failure}" in written.read_text(encoding="utf-8")
    assert "Unhandled error" not in capfd.readouterr().err


def run_elsewhere(script: str) -> str:
    """Run a script; returns what it printed."""
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


_WORDS = "compare --methods sequential {method} --env latency --latency-mean-s 0.001 --rounds 1 --seconds 0.1 {words}"


def test_a_method_whose_library_is_missing_is_not_run_and_the_others_are() -> None:
    words = _WORDS.format(method="ray-tasks", words="--n-workers 1").split()
    shown = run_elsewhere(
        f"{sys.executable} -c \"import sys; sys.modules['ray'] = None; from ray_rl.cli import main; main({words})\""
    )
    assert "ray-tasks, 1 worker: --collector ray-tasks needs ray, which is not installed: pip install" in shown
    assert "not run" in shown
    assert "Where the time went" in shown


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs a mount namespace, to have little shared memory in",
)
def test_a_method_that_lacks_shared_memory_is_not_run_and_the_others_are() -> None:
    words = _WORDS.format(method="executor", words="--n-workers 1 --hidden-sizes 500 500")
    shown = run_elsewhere(
        f"unshare -m sh -c 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec {sys.executable} -m ray_rl {words}'"
    )
    assert "executor, 1 worker: 1.3 MiB of weights do not fit the shared memory that is free" in shown
    assert "Where the time went" in shown


def test_more_workers_than_memory_are_refused_with_the_estimate() -> None:
    with pytest.raises(UserError, match=r"1000000 workers need about .* GiB, .* use --n-workers \d+ or fewer"):
        check_memory(Study(("executor",), LATENCY, (1_000_000,), 10))


def test_the_command_writes_every_file_that_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"comparison.{name}" for name in ("json", "markdown", "plot")}
    files["plot"] = tmp_path / "comparison.png"
    words = ["compare", "--methods", "sequential", "executor", "--scaling", "1,2", "--rounds", "2"]
    words += ["--episodes", "4000", "--seconds", "0.3"]
    words += [word for name, path in files.items() for word in (f"--{name}", str(path))]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "recommended" in shown
    saved = json.loads(files["json"].read_text(encoding="utf-8"))
    assert {(r["method"], r["n_workers"]) for r in saved["results"]} == {
        ("sequential", 1),
        ("executor", 1),
        ("executor", 2),
    }
    assert all(len(r["runs"]) == 2 for r in saved["results"])
    assert files["markdown"].read_text(encoding="utf-8").count("| executor |") >= 2
    assert files["plot"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--json", "no/folder/x.json"], "--json no/folder/x.json"),
        (["--plot", "."], "--plot . is a folder"),
        (["--env", "NoSuchEnv-v0"], "NoSuchEnv"),
        (["--env", "latency", "--n-workers", "1000000"], "1000000 workers need about"),
        (["--methods", "exekutor"], "exekutor"),
        (["--scaling", "0"], "must be 1 or more"),
        (["--scaling", "1,x"], "--scaling: takes whole numbers, not '1,x'"),
        (["--seconds", "0"], "--seconds must be positive"),
        (["--env", "latency", "--latency-max-s", "0.001"], "latency_max_s"),
        (["--red-agent", "Meander"], "did you mean 'RedMeanderAgent'"),
    ],
)
def test_what_cannot_work_is_one_clear_error(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--methods", "sequential", "--seconds", "0.1", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert says in lines[0]
