"""Ray at the rim: connecting, and draining references as they are done.

A local Ray belongs to the run that started it: it has the workers that the run asks for, no dashboard, says nothing,
and is gone when the run ends, also when the run is killed. On a cluster the package travels to the workers with the
job. Where this process is itself the driver of a submitted job, it uses the job's cluster and what travelled with the
job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError
from ray.experimental import get_local_object_locations
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ray_rl
from ray_rl.failures import UserError
from ray_rl.process_guard import guarded
from ray_rl.ray_start import ended, start_local

_CONNECT_TIMEOUT_S = 5.0
_ROUND_TRIP_TIMEOUT_S = 60.0
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable by which Ray tells a job's driver what it is."""

_log = logging.getLogger(__name__)


@contextmanager
def connection(
    address: str | None,
    n_workers: int,
    *,
    py_modules: Sequence[str] = (),
    env_vars: Mapping[str, str] | None = None,
) -> Iterator[bool]:
    """Be connected to Ray for a while; a connection that is there already is used and left alone.

    Args:
        address: Of a running cluster (``HOST:PORT``, ``ray://HOST:PORT`` or ``auto``), or None for that of the job
            whose driver this is, outside of a job for a Ray of its own.
        n_workers: CPUs that a Ray of its own claims to have, whatever the machine has: workers that wait need none.
        py_modules: Folders of Python packages that travel to the workers of a cluster besides this one.
        env_vars: Environment variables of the workers of a cluster.

    Yields:
        Whether it is a Ray of its own: at the end of the block it is gone, with all that still runs in it.

    Raises:
        UserError: When the cluster cannot be reached.
        RunError: When a Ray of its own does not start.
    """
    if ray.is_initialized():
        yield False
        return
    is_own = address is None and not in_job()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Tasks that failed are dropped when another failure has ended the run; Ray would print the errors of them all.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    _silence()
    started: list[int] = []
    with ExitStack() as leftovers:
        try:
            with _own_sigterm():
                if in_job():
                    _join_own_cluster()
                elif address is None:
                    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
                    started = start_local(n_workers)
                    leftovers.enter_context(guarded(started))
                else:
                    _join(address, py_modules, env_vars or {})
            yield is_own
        finally:
            with ended(started):
                ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Give SIGTERM back to whoever had it: `ray.init` takes it, and would abort the process unheard by Python."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _silence() -> None:
    """Keep Ray's own remarks about workers off the screen; what ends a run comes as an exception with its cause.

    Ray has no setting for it: whatever `log_to_driver` says, a node that dies prints its last fifty lines of log.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private import worker
        from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

        dispatcher.remove_handler("ray_print_logs")
        cast("Any", worker).print_to_stdstream = _say_nothing


def _say_nothing(data: object, ignore_prefix: bool = False) -> None:
    """In place of the function that prints those remarks."""


def in_job() -> bool:
    """Whether this process is the driver of a job that was submitted to a cluster."""
    return _JOB_VARIABLE in os.environ


def _join_own_cluster() -> None:
    """Workers find the package as this driver did: it is installed there, or came with the job."""
    ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level=logging.ERROR)


def _join(address: str, py_modules: Sequence[str], env_vars: Mapping[str, str]) -> None:
    check_reachable(address)
    package = str(Path(ray_rl.__file__).parent)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"py_modules": [package, *py_modules], "env_vars": dict(env_vars)},
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        if "Version mismatch" in str(error):
            raise UserError(
                f"the cluster at --address {address} runs another Ray or Python than this process: "
                f"{' '.join(str(error).split())}. Install the same here as there"
            ) from error
        raise UserError(
            f"no Ray cluster answers at --address {address}: {str(error).strip().splitlines()[0]}. Check that it runs "
            "(`ray status --address …`) with this Ray and Python version, or leave --address out to train "
            "on this machine"
        ) from error


def check_reachable(address: str) -> None:
    """Whether a Ray can be at an address: Ray itself tries for a minute; a closed port is known at once.

    Args:
        address: HOST:PORT, ray://HOST:PORT or ``auto`` (which is taken on trust).

    Raises:
        UserError: When it is no address, nothing answers there, or what answers is not Ray.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UserError(
            f"--address {address!r} is not HOST:PORT, ray://HOST:PORT or auto (a dashboard takes runs by ray-rl submit)"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(
            f"nothing answers at --address {address} ({error}): start a cluster there (`ray start --head`), check the "
            "port and the firewall, or leave --address out to train on this machine"
        ) from error
    _check_speaks_ray(address, host, int(port))


def _check_speaks_ray(address: str, host: str, port: int) -> None:
    """Ray's ports speak gRPC; Ray itself waits for a minute for anything else to do so."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    import grpc  # not needed by workers, who load this module, too

    channel = grpc.insecure_channel(f"{host}:{port}")
    try:
        grpc.channel_ready_future(channel).result(timeout=_CONNECT_TIMEOUT_S)
    except grpc.FutureTimeoutError as error:
        raise UserError(
            f"what answers at --address {address} is not Ray: name the port of a head node (6379 unless configured "
            "otherwise; ray://HOST:10001 from outside), or send a run to a dashboard's port (8265) by ray-rl submit"
        ) from error
    finally:
        channel.close()


FAST_FAILURE: Mapping[str, int] = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
    "grpc_client_keepalive_time_ms": 5000,
    "grpc_client_keepalive_timeout_ms": 5000,
}
"""System configuration of a cluster's head with which a node that is dead or cut off is given up after 10 s or so, and
what it was doing runs again elsewhere. Ray's own settings take a minute, and 7 minutes behind a cut link. A Ray on one
machine does without: there is no other node to go on with, and a machine that slept must not lose its only one."""


def cluster_cpus() -> int:
    """CPUs that the connected Ray has now; 0 when no node that may run episodes has joined."""
    resources: dict[str, float] = cast("Any", ray).cluster_resources()
    return int(resources.get("CPU", 0))


def cluster_nodes() -> int:
    """Nodes that the connected Ray has now, whatever they offer."""
    return sum(bool(node["Alive"]) for node in cast("Any", ray).nodes())


def this_node() -> Any:
    """Scheduling strategy of an actor that shares the machine of whoever starts it.

    Not a soft one: that is a wish, which Ray does not grant to most actors that ask for no CPU.
    """
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def ask_for_cpus(count: int) -> None:
    """Ask the autoscaler for a cluster of so many CPUs; 0 takes the wish back. Harmless without one."""
    from ray.autoscaler.sdk import request_resources

    try:
        cast("Any", request_resources)(num_cpus=count)
    except Exception as error:  # from outside of the cluster (ray://) for one; episodes run on what is there
        _log.warning("the cluster's autoscaler cannot be asked for %d CPUs: %r", count, error)


def what_is_busy() -> str:
    """What the connected Ray is doing, in a line, for whoever waits in vain for a task."""
    nodes = cast("Any", ray).nodes()
    n_alive = sum(bool(node["Alive"]) for node in nodes)
    lost = f", {len(nodes) - n_alive} more are gone" if n_alive < len(nodes) else ""
    n_cpus = cluster_cpus()
    n_busy = n_cpus - int(cast("Any", ray).available_resources().get("CPU", 0))
    if n_cpus and n_busy == 0:
        reason = "so the tasks wait for a worker to start; `ray status` and the logs of the nodes say why it does not"
    else:
        reason = "so an environment hangs, or --watchdog-s is too short for its episodes"
    return f"{n_alive} nodes are there{lost}; {n_busy} of their {n_cpus} CPUs are busy, {reason}"


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A task that went to a worker and back.

    Attributes:
        seconds: From asking to having its result, the start of the worker included.
        n_nodes: Machines of the connected Ray.
        n_cpus: CPUs that it has.
    """

    seconds: float
    n_nodes: int
    n_cpus: int


@ray.remote(num_cpus=0)
def _ping() -> None:
    pass


def round_trip() -> RoundTrip:
    """Send a task to the connected Ray and wait for it."""
    started = time.perf_counter()
    ray.get(_ping.remote(), timeout=_ROUND_TRIP_TIMEOUT_S)
    return RoundTrip(time.perf_counter() - started, cluster_nodes(), cluster_cpus())


def put_once(value: object, n_bytes: int) -> tuple[ray.ObjectRef[Any], int]:
    """Put a value into the object store, whoever reads it.

    Args:
        value: What to put.
        n_bytes: Its size, for where Ray does not tell what it has written (a driver outside of the cluster).

    Returns:
        The reference, and the bytes that were written.
    """
    ref = ray.put(value)
    with contextlib.suppress(RuntimeError, AttributeError):
        n_bytes = cast("Any", get_local_object_locations)([ref])[ref]["object_size"] or n_bytes
    return ref, n_bytes


def wait_some(refs: Sequence[ray.ObjectRef[Any]], timeout_s: float | None) -> list[ray.ObjectRef[Any]]:
    """Wait until at least one reference is done, then take all that are.

    Args:
        refs: References under way.
        timeout_s: Longest wait in seconds; None waits as long as it takes.

    Returns:
        Those that are done (or failed); empty when the time ran out.
    """
    ready, _ = ray.wait(list(refs), num_returns=1, timeout=timeout_s, fetch_local=False)
    if ready:
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)
    return ready


def first_cause(error: Exception) -> Exception:
    """The exception that a worker raised, without Ray's wrapping; other errors as they are."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return error.cause
    return error
