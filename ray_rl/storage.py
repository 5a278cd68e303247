"""Places where runs lie: a local folder is a `pathlib.Path`, anything with a scheme (s3://, gs://, …) a `UPath`.

Both are read in the same words (``/``, `exists`, `read_text`, `glob`). They differ in how something is written whole: a
local file is written beside its name and renamed; an object store has no rename, but keeps an object whole or not at
all. Libraries for storage are loaded when somebody names a place with a scheme.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

from ray_rl.failures import RunError, UserError

if TYPE_CHECKING:
    from typing_extensions import TypeIs
    from upath import UPath

Location: TypeAlias = "Path | UPath"
"""A folder or file, here or in a remote storage."""
Where = TypeVar("Where", bound="Path | UPath")
"""Either of them: what comes in goes out."""

_WHOLE_OR_NOT = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "memory")
"""Schemes whose storage keeps an object whole or not at all."""


def location(name: str | Path) -> Location:
    """The place that a user names.

    Args:
        name: A local path, ``file:///…``, or a URL with a scheme that fsspec knows.

    Raises:
        ValueError: When fsspec does not know the scheme, or a package for it is missing; says which.
    """
    if isinstance(name, Path) or "://" not in name:
        return Path(name)
    if name.startswith("file://"):
        return Path(unquote(urlsplit(name).path))
    from upath import UPath

    try:
        place = UPath(name.rstrip("/"), use_listings_cache=False)
        place.fs  # noqa: B018 - this is where a missing package shows
    except ImportError as error:
        raise ValueError(f"{name}: {error} (pip install, here and on the cluster)") from error
    except ValueError as error:
        raise ValueError(f"{name}: unknown kind of storage ({error}); for example s3://BUCKET/FOLDER") from error
    return place


def is_remote(place: Location) -> TypeIs[UPath]:
    """Whether a place lies in a storage that is reached through fsspec."""
    return not isinstance(place, Path)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Have whatever goes wrong in a storage raised as OSError: each library has errors of its own."""
    try:
        yield
    except (OSError, UserError, RunError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def write_whole(place: Location, content: bytes) -> None:
    """Write a file so that readers see what was there before, or all of this.

    Args:
        place: The file; a folder for it is there, where the storage has folders.
        content: Its bytes.

    Raises:
        OSError: When it cannot be written.
    """
    if not is_remote(place):
        unfinished = place.with_name(f".{place.name}.unfinished")
        unfinished.write_bytes(content)
        os.replace(unfinished, place)
        return
    with storage_errors():
        if place.protocol in _WHOLE_OR_NOT:
            place.fs.pipe_file(place.path, content)
        else:
            place.fs.makedirs(place.parent.path, exist_ok=True)
            unfinished_there = f"{place.path}.{uuid.uuid4().hex}.unfinished"
            place.fs.pipe_file(unfinished_there, content)
            place.fs.mv(unfinished_there, place.path)


def write_new(place: UPath, content: bytes) -> None:
    """Write a file that is not there yet; storages that cannot refuse an existing one replace it.

    Args:
        place: The file, in a remote storage.
        content: Its bytes.

    Raises:
        FileExistsError: When it is there.
        OSError: When it cannot be written.
    """
    with storage_errors():
        if place.protocol not in _WHOLE_OR_NOT:
            place.fs.makedirs(place.parent.path, exist_ok=True)
        try:
            place.fs.pipe_file(place.path, content, mode="create")
        except (TypeError, NotImplementedError):
            place.fs.pipe_file(place.path, content)


def check_writable(folder: UPath) -> None:
    """Write, read and remove a small file.

    Args:
        folder: In a remote storage; need not exist.

    Raises:
        OSError: When any of it fails.
    """
    probe = folder / f".probe-{uuid.uuid4().hex}"
    write_whole(probe, b"may I?")
    with storage_errors():
        if probe.fs.cat_file(probe.path) != b"may I?":
            raise OSError("what was written does not come back")
        probe.fs.rm_file(probe.path)
