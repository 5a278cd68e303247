"""The file in which a cluster is described for ``ray up``, checked before anything is started."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jsonschema
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ray_rl.config import UserError


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """What is to know about a cluster's machines before there is a cluster.

    Attributes:
        provider: ``local`` for machines of one's own, or the cloud that makes them.
        head: The head's address; empty in a cloud.
        workers: Addresses of the workers; none in a cloud.
        user: Who logs in there.
        key: File of the private SSH key; None for SSH's own choice.
        sent: Files and folders that `ray up` sends to every machine, as the file names them.
    """

    provider: str
    head: str
    workers: tuple[str, ...]
    user: str
    key: Path | None
    sent: tuple[str, ...]


def read_cluster_file(path: Path) -> ClusterFile:
    """Read a file and hold it against Ray's schema, and machines of one's own against what Ray needs of them.

    Raises:
        UserError: When `ray up` would not take it, or would start a cluster on which no episode ever runs.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the cluster file {path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    provider = values.get("provider") if isinstance(values, dict) else None
    if not isinstance(provider, dict) or "type" not in provider:
        raise UserError(f"{path} is no cluster file: it has no 'provider' with a 'type'; see cluster/README.md")
    if provider["type"] == "local":
        _check_machines(path, values)
    _check_form(path, values)
    auth = values.get("auth") or {}
    key = auth.get("ssh_private_key")
    return ClusterFile(
        provider=str(provider["type"]),
        head=str(provider.get("head_ip", "")),
        workers=tuple(map(str, provider.get("worker_ips", ()))),
        user=str(auth.get("ssh_user", "")),
        key=None if key is None else Path(key).expanduser(),
        sent=tuple(map(str, (values.get("file_mounts") or {}).values())),
    )


def _check_machines(path: Path, values: dict[str, Any]) -> None:
    """Ray fails on some of these with an assertion, and starts fewer machines than asked for on others, unsaid."""
    provider = values["provider"]
    head, workers = provider.get("head_ip"), provider.get("worker_ips")
    if not head:
        raise UserError(f"{path}: provider: name the head's address as head_ip")
    if not isinstance(workers, list) or not workers:
        raise UserError(f"{path}: provider: worker_ips names no machine, so that no episode would ever run")
    for address in workers:
        if address == head:
            raise UserError(f"{path}: provider: {address} is head_ip and among worker_ips: it can be one of them only")
        if workers.count(address) > 1:
            raise UserError(f"{path}: provider: worker_ips names {address} more than once")
    for name in ("min_workers", "max_workers"):
        if isinstance(wanted := values.get(name), int) and wanted > len(workers):
            raise UserError(f"{path}: {name} is {wanted}, but worker_ips names {len(workers)} machines")


def _check_form(path: Path, values: dict[str, Any]) -> None:
    logging.getLogger("ray").setLevel(logging.WARNING)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            validate_config(prepare_config(values))
    except jsonschema.ValidationError as error:
        where = ".".join(map(str, error.absolute_path))
        raise UserError(f"{path}: {where + ': ' if where else ''}{error.message}") from error
    except (click.ClickException, NotImplementedError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (said.getvalue() or str(error) or type(error).__name__).strip().splitlines()[-1]
        raise UserError(f"{path}: {reason}") from error
