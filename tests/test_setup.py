"""The set-up makes its folder whatever lies in its place; a stand-in for Python spares the test pip's minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ray_rl.bench.versions import OWN_FOLDER

STAND_IN = """#!/usr/bin/env bash
[ "$2" = venv ] || exec python3 "$@"
mkdir "$3" "$3/bin" && printf '#!/bin/sh\\n' >"$3/bin/python" && chmod +x "$3/bin/python"
"""


def test_a_link_in_the_place_of_the_environment_is_replaced_and_what_it_names_stays(tmp_path: Path) -> None:
    for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(OWN_FOLDER / name, tmp_path / name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (tmp_path / ".venv").symlink_to(elsewhere)
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    subprocess.run(
        [tmp_path / "scripts" / "setup.sh"], env={**os.environ, "PYTHON": str(python)}, check=True, timeout=60
    )
    assert (tmp_path / ".venv" / "stamp").is_file()
    assert not (tmp_path / ".venv").is_symlink()
    assert (elsewhere / "kept").exists()
