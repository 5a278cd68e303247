"""A clock that jumps by two hours, four times a second, once a run on Ray is under way: its driver, workers and Ray.

It is steady while Ray starts: a jump in those seconds can leave Ray waiting for its first workers without end.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from ray_rl.chaos.drill import differing_arrays
from ray_rl.chaos.training import Training
from ray_rl.config import TrainConfig

_JUMPING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*real)(clockid_t, struct timespec *);

int clock_gettime(clockid_t id, struct timespec *now) {
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    const char *begun = getenv("JUMPING_CLOCK_BEGUN");
    if ((id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) && begun && access(begun, F_OK) == 0) {
        struct timespec steady;
        real(CLOCK_MONOTONIC, &steady);
        now->tv_sec += steady.tv_nsec / 250000000 % 2 ? 3600 : -3600;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
"""
_CONFIG = TrainConfig.from_mapping(
    {
        "total_episodes": 2400,
        "episodes_per_update": 40,
        "episode_steps": 20,
        "hidden_sizes": [8],
        "evaluate_every": 0,
        "seed": 4,
        "watchdog_s": 60.0,
    },
    "test",
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, for a library that makes clocks jump")
def test_a_clock_that_jumps_changes_no_bit_and_no_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jumping.c").write_text(_JUMPING)
    library, begun = tmp_path / "jumping.so", tmp_path / "begun"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "jumping.c", "-ldl"], check=True)
    with monkeypatch.context() as jumping:
        jumping.setenv("LD_PRELOAD", str(library))
        jumping.setenv("JUMPING_CLOCK_BEGUN", str(begun))
        started = time.monotonic()
        with Training(_CONFIG, tmp_path / "jumping", ["--n-workers", "2"]) as training:
            training.wait_for_update(2)
            begun.touch()
            training.wait()
            rows = training.rows()
        took_s = time.monotonic() - started
    with Training(_CONFIG, tmp_path / "steady", ["--collector", "sequential"]) as training:
        training.wait()

    assert differing_arrays(tmp_path / "steady", tmp_path / "jumping") == []
    assert min(steps_of_clock_s(tmp_path / "jumping")) < -7000, "the driver's clock did not jump"
    times_s = [0.0, *(row["time_s"] for row in rows), took_s]
    assert times_s == sorted(times_s)
    assert all(0 <= row["time/update_s"] <= took_s for row in rows)


def steps_of_clock_s(run_dir: Path) -> list[float]:
    """From one of TensorBoard's events to the next, by the clock of the driver that wrote them, in seconds."""
    loader = EventFileLoader(str(next(run_dir.glob("events.out.tfevents.*"))))
    return [late - early for early, late in pairwise(event.wall_time for event in loader.Load())]
