"""Where compiled kernels are kept from one process to the next.

Numba looks only at a function's own file to see whether its compiled form is still good. Kernels here hold what other
files of the package say (the layout of a state, a port, a rule), so a package that was updated in place would go on
with the old rules. The folder is therefore named after the sources of the whole package. It lies in the user's cache,
where many processes and an installation that cannot be written to share it.

Inside, numba keeps apart what lies in different places. A package that is sent to a cluster lies elsewhere for each
cluster and each change, and every machine would compile again what it has; so the places of one package are made one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

_VARIABLE = "NUMBA_CACHE_DIR"
_UNUSED_S = 30 * 24 * 3600.0
"""Kernels of other sources that were not compiled for so long are removed, in seconds."""


def keep_kernels(package: Path) -> Path:
    """Tell numba where the kernels of a package are; returns the folder.

    Args:
        package: Folder of the package. A ``NUMBA_CACHE_DIR`` of the user's own is used as the place for its folder.
    """
    name = _digest(package)
    given = os.environ.get(_VARIABLE)
    if given and Path(given).name == name:  # told by the process that started this one
        _share(package, Path(given))
        return Path(given)
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "ray_rl" / "kernels"
    folder = (Path(given) if given else home) / name
    if not given and home.is_dir() and not folder.is_dir():
        _remove_unused(home)
    _share(package, folder)
    os.environ[_VARIABLE] = str(folder)
    if "numba" in sys.modules:  # it has read the variable already
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    return folder


def _share(package: Path, folder: Path) -> None:
    """Lead numba's folders for this place of the package to those that all its places have in common."""
    for source in {path.parent for path in package.rglob("*.py")}:
        place = os.path.abspath(source)
        link = folder / f"{source.name}_{hashlib.sha1(place.encode()).hexdigest()}"  # numba's name for it
        with contextlib.suppress(OSError):  # one that is there already, or no right to: it works, only less is shared
            if not link.exists():
                common = folder / "shared" / source.relative_to(package.parent)
                common.mkdir(parents=True, exist_ok=True)
                link.symlink_to(common, target_is_directory=True)


def _digest(package: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _remove_unused(home: Path) -> None:
    for other in home.iterdir():
        if time.time() - other.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(other, ignore_errors=True)
