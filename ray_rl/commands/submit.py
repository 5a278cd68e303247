"""``ray-rl submit``: trainings as jobs of a Ray cluster."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from ray_rl.commands.flags import parse, save_json, take
from ray_rl.commands.screen import make_console
from ray_rl.commands.train import read_config
from ray_rl.config import TrainConfig, UserError, suggest
from ray_rl.storage import is_remote, location

if TYPE_CHECKING:
    from ray_rl.ray_jobs import Job, Jobs

_USAGE = """usage: ray-rl submit train [flags of `ray-rl train`] [--detach] [--python COMMAND]
       ray-rl submit list [--json FILE]
       ray-rl submit follow|stop|resume ID
All take --address http://HOST:8265, the dashboard of the cluster's head node (default: $RAY_API_SERVER_ADDRESS, else
this machine's, which is also the near end of `ray dashboard cluster.yaml`).

  train   send the package (and CybORG for --env cyborg) to the cluster, train there, show the output; the exit code is
          the run's. Ctrl-C asks the run to save and end, a second Ctrl-C leaves it alone. --run-dir is a place that the
          cluster can write to: s3://BUCKET/RUN, gs://BUCKET/RUN, or an absolute folder of the head node.
          --detach: return as soon as the run is sent. --python: the head node's Python (default: python).
  list    runs that the cluster remembers
  follow  show the output of a run, from its beginning, until it is over
  stop    ask a run to save and end
  resume  go on with a run that is over, from its last checkpoint, as a new job
"""
_ACTIONS = ("train", "list", "follow", "stop", "resume")


@dataclass(frozen=True)
class _ListFlags:
    """Flags of ``ray-rl submit list``."""

    json: Path | None = None
    """File for what the table shows, as JSON."""


@dataclass(frozen=True)
class _JobFlags:
    """Flags of the commands about one job."""

    id: Annotated[str, tyro.conf.Positional]
    """The job, as `ray-rl submit list` names it."""
    detach: bool = False
    """Return as soon as the run is sent."""


def run(words: list[str]) -> int:
    """Do what the first word says; returns the exit code, for a run that was followed its own."""
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if words else 2
    action, words = words[0], words[1:]
    if action not in _ACTIONS:
        raise UserError(f"ray-rl submit cannot {action!r}{suggest(action, _ACTIONS)}")
    if "--help" in words or "-h" in words:
        print(_USAGE)
        return 0
    address, words = take(words, "--address", "the address of a dashboard")
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    python, words = take(words, "--python", "a command") if action in ("train", "resume") else (None, words)
    if action == "train":
        detach = "--detach" in words
        config = read_config([word for word in words if word != "--detach"])
        _check_place(config)
        jobs = _jobs_at(address)
        return _start(jobs, config, python, detach)
    if action == "list":
        flags = parse(_ListFlags, "submit list", "Runs that the cluster remembers.", words)
        return _list(_jobs_at(address), flags.json)
    job = parse(_JobFlags, f"submit {action}", "About one job.", words)
    jobs = _jobs_at(address)
    if action == "follow":
        return _follow(jobs, job.id)
    if action == "stop":
        jobs.stop(job.id)
        print(f"{job.id}: asked to save and end; ray-rl submit follow {job.id} shows how it does")
        return 0
    return _start(jobs, _config_to_resume(jobs.find(job.id)), python, job.detach)


def _jobs_at(address: str | None) -> Jobs:
    from ray_rl.ray_jobs import DEFAULT_ADDRESS, Jobs  # after the flags: help needs none of it

    return Jobs(address or DEFAULT_ADDRESS)


def _check_place(config: TrainConfig) -> None:
    """A job's working folder is a cache of Ray's: what it leaves there is lost."""
    name = config.run.run_dir
    if name is None:
        raise UserError(
            "a run on a cluster needs --run-dir: a place that the cluster can write to, as s3://BUCKET/RUN, or an "
            "absolute folder of the head node"
        )
    place = location(name)
    if not is_remote(place) and not place.is_absolute():
        raise UserError(f"--run-dir {name} is relative, to a folder of a job that does not stay: name an absolute one")


def _start(jobs: Jobs, config: TrainConfig, python: str | None, detach: bool) -> int:
    job_id = jobs.submit(config, python or "python")
    print(f"{job_id} on {jobs.address}, run folder {config.run.run_dir}", flush=True)
    if detach:
        print(f"  ray-rl submit follow {job_id} --address {jobs.address}")
        return 0
    return _follow(jobs, job_id, stop_on_interrupt=True)


def _follow(jobs: Jobs, job_id: str, stop_on_interrupt: bool = False) -> int:
    """Show a job until it is over; the first Ctrl-C stops it where it was started from here."""
    try:
        job = jobs.follow(job_id, _write)
    except KeyboardInterrupt:
        if not stop_on_interrupt:
            raise
        print("\nstopping: the run saves and ends (Ctrl-C again leaves it alone)", file=sys.stderr, flush=True)
        jobs.stop(job_id)
        job = jobs.wait(job_id)
        print(f"stopped; to go on:\n  ray-rl submit resume {job_id} --address {jobs.address}", file=sys.stderr)
    return _exit_code(job)


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _exit_code(job: Job) -> int:
    """That of the run; where it has none, 1, and the reason on the screen."""
    if job.status == "SUCCEEDED":
        return 0
    if job.exit_code is None or job.status == "STOPPED":
        print(f"error: {job.id} {job.status.lower()}: {job.message}", file=sys.stderr)
        return 1
    if job.exit_code == 127:
        print("error: the head node found no such Python: name one there with --python", file=sys.stderr)
    return job.exit_code


def _config_to_resume(job: Job) -> TrainConfig:
    if job.config is None:
        raise UserError(f"{job.id} is no run of this ray_rl: start it with ray-rl submit train … --resume auto")
    if not job.is_over:
        raise UserError(f"{job.id} is {job.status.lower()}: stop it first (ray-rl submit stop {job.id})")
    return job.config.model_copy(update={"run": job.config.run.model_copy(update={"resume": "auto"})})


def _list(jobs: Jobs, json_file: Path | None) -> int:
    found = jobs.all()
    table = Table(title=f"jobs on {jobs.address}", title_justify="left")
    for name in ("id", "status", "started", "minutes", "run folder"):
        table.add_column(name, justify="right" if name == "minutes" else "left", overflow="fold")
    for job in found:
        started = "–" if job.started_s is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started_s))
        minutes = _minutes(job)
        table.add_row(job.id, job.status, started, "–" if minutes is None else f"{minutes:.1f}", _run_dir(job) or "–")
    make_console().print(table)
    rows = [
        {
            "id": job.id,
            "status": job.status,
            "started_s": job.started_s,
            "minutes": _minutes(job),
            "exit_code": job.exit_code,
            "run_dir": _run_dir(job),
        }
        for job in found
    ]
    save_json(json_file, {"address": jobs.address, "jobs": rows})
    return 0


def _minutes(job: Job) -> float | None:
    return None if job.started_s is None else ((job.ended_s or time.time()) - job.started_s) / 60


def _run_dir(job: Job) -> str | None:
    return None if job.config is None else job.config.run.run_dir
