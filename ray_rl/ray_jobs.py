"""Runs as jobs of a Ray cluster: sent there with the package, followed from here, stopped and gone on with.

A thin layer over Ray's job API. A job's driver runs on the cluster's head node and outlives the connection from here.
What it needs travels along: this package, CybORG when the run plays in it, and the run's resolved configuration, which
is also kept as the job's metadata, so that a run can be gone on with from anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

import ray_rl
from ray_rl.config import TrainConfig, UserError
from ray_rl.failures import RunError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where a head node's dashboard answers, seen from that node or through a tunnel to it."""

_CONFIG = "run.yaml"
_ANSWER_TIMEOUT_S = 10.0
_RECONNECT_S = 60.0
_STOP_WAIT_S = 120
"""Time that a stopped run has to finish its update and save, in seconds, before it is killed."""
_UNWANTED = ["**/__pycache__", "**/*.nbi", "**/*.nbc"]


@dataclass(frozen=True, slots=True)
class Job:
    """A run on the cluster.

    Attributes:
        id: Names it in all commands.
        status: Ray's word: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: What Ray says about it.
        exit_code: Of its process; None while it runs, and where it never started or was stopped.
        started_s: Start in seconds since 1970, if it started.
        ended_s: The same for its end.
        config: The run; None for a job that is not one of ours.
    """

    id: str
    status: str
    message: str
    exit_code: int | None
    started_s: float | None
    ended_s: float | None
    config: TrainConfig | None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class Jobs:
    """The jobs of a cluster.

    Args:
        address: ``http://HOST:PORT`` of the cluster's dashboard.

    Raises:
        UserError: When no Ray answers there, or it refuses.
    """

    def __init__(self, address: str) -> None:
        self.address = address if "://" in address else f"http://{address}"
        logging.getLogger("ray").setLevel(logging.WARNING)
        _check_answers(self.address)
        try:
            self._client = JobSubmissionClient(self.address)
        except (RuntimeError, ConnectionError, ValueError, KeyError, RayError) as error:
            raise UserError(
                f"no Ray job server answers at --address {self.address}: {_first_line(error).rstrip('.')}. {_ADVICE}"
            ) from error

    def submit(self, config: TrainConfig, python: str) -> str:
        """Start a run on the cluster.

        Args:
            config: The run; its folder is one that the cluster can write to.
            python: Command of the Python that has ray_rl's requirements on the head node.

        Returns:
            The job's id.

        Raises:
            UserError: When the cluster refuses it.
        """
        text = config.to_yaml()
        modules, env_vars = _luggage(config)
        with tempfile.TemporaryDirectory(prefix="ray-rl-job-") as folder:
            (Path(folder) / _CONFIG).write_text(text, encoding="utf-8")
            try:
                job_id: str = self._client.submit_job(
                    entrypoint=f"{shlex.quote(python)} -m ray_rl train --config {_CONFIG}",
                    runtime_env={
                        "working_dir": folder,
                        "py_modules": modules,
                        "excludes": _UNWANTED,
                        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S)} | env_vars,
                    },
                    metadata={"ray_rl": ray_rl.__version__, "config": text},
                )
            except (RuntimeError, ValueError, OSError) as error:
                raise UserError(f"{self.address} did not take the run: {_first_line(error)}") from error
        return job_id

    def follow(self, job_id: str, write: Callable[[str], None]) -> Job:
        """Pass a job's output on, from its beginning, until it is over; a broken connection is made again.

        Args:
            job_id: The job.
            write: Takes pieces of the output.

        Returns:
            The job, over.

        Raises:
            RunError: When the cluster cannot be reached any more.
        """
        self.find(job_id)
        written, lost_at = 0, None
        while True:
            try:
                written += asyncio.run(self._tail(job_id, written, write))
                job = self.find(job_id)
                lost_at = None
                if job.is_over:
                    return job
            except (RuntimeError, OSError, aiohttp.ClientError) as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > _RECONNECT_S:
                    raise RunError(
                        f"{self.address} cannot be reached any more ({_first_line(error)}); the run may go on there: "
                        f"ray-rl submit follow {job_id} --address {self.address}"
                    ) from error
            time.sleep(1.0)

    async def _tail(self, job_id: str, skip: int, write: Callable[[str], None]) -> int:
        """Write what comes after the first `skip` characters of the output; returns how many that were."""
        position, written = 0, 0
        try:
            async for piece in self._client.tail_job_logs(job_id):
                new = piece[max(0, skip - position) :]
                position += len(piece)
                if new:
                    written += len(new)
                    write(new)
        except (RuntimeError, aiohttp.ClientError):
            if not written:
                raise
        return written

    def stop(self, job_id: str) -> None:
        """Ask a run to save and end; it is killed when that takes too long. Returns at once."""
        self.find(job_id)
        with contextlib.suppress(RuntimeError):  # it ended in between
            self._client.stop_job(job_id)

    def wait(self, job_id: str) -> Job:
        """Wait until a job is over."""
        while not (job := self.find(job_id)).is_over:
            time.sleep(0.5)
        return job

    def find(self, job_id: str) -> Job:
        """Look a job up.

        Raises:
            UserError: When the cluster has no such job.
        """
        try:
            return _job_of(self._client.get_job_info(job_id))
        except RuntimeError as error:
            if "does not exist" not in str(error):
                raise
            raise UserError(
                f"{self.address} has no job {job_id}: ray-rl submit list --address {self.address} names them"
            ) from error

    def all(self) -> list[Job]:
        """All jobs that the cluster remembers, the latest first."""
        jobs = [_job_of(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(jobs, key=lambda job: job.started_s or 0.0, reverse=True)


_ADVICE = (
    "It must be the address of the head node's dashboard, http://HOST:8265 unless configured otherwise "
    "(from outside through a tunnel: `ray dashboard cluster.yaml`)"
)


def _check_answers(address: str) -> None:
    """Ray's client waits without end for something that accepts a connection and says nothing."""
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=_ANSWER_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # it speaks HTTP; Ray's client knows what the answer means
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"no Ray job server answers at --address {address}: {reason}. {_ADVICE}") from error
    except Exception as error:  # http.client's: it speaks something else
        raise UserError(f"what answers at --address {address} is not Ray: {error!r}. {_ADVICE}") from error


def _luggage(config: TrainConfig) -> tuple[list[str], dict[str, str]]:
    """Packages that travel with a run, and environment variables that say so."""
    modules = [str(Path(ray_rl.__file__).parent)]
    if config.env.env != "cyborg":
        return modules, {}
    from ray_rl.envs.cyborg.find import shipment

    sent = shipment(config.env.cyborg_path)
    return [*modules, str(sent.package)], sent.env_vars


def _job_of(details: Any) -> Job:
    config = None
    with contextlib.suppress(UserError, KeyError, yaml.YAMLError):  # another ray_rl's job, or somebody else's
        config = TrainConfig.from_mapping(yaml.safe_load((details.metadata or {})["config"]), "job")
    return Job(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started_s=details.start_time / 1000 if details.start_time else None,
        ended_s=details.end_time / 1000 if details.end_time else None,
        config=config,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
