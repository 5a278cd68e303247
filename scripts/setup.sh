#!/usr/bin/env bash
# Make .venv with the tested versions. Does nothing when it is current; safe when two run at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
    echo "error: $python not found: install Python 3.11 or newer, or name it in PYTHON" >&2
    exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $("$python" --version) is too old: ray_rl needs Python 3.11 or newer; name one in PYTHON" >&2
    exit 2
fi

# The folder's own path is part of it: a virtual environment cannot be moved.
stamp=$(cat pyproject.toml constraints.txt <(pwd) <("$python" --version) | sha256sum | cut -d' ' -f1)
current() { [ -f .venv/stamp ] && [ "$(cat .venv/stamp)" = "$stamp" ]; }
current && exit 0

exec 9>.setup.lock
flock 9
current && exit 0

echo "setting up .venv (once; a few minutes)" >&2
rm -rf .venv  # not venv's --clear, which stops at a link
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
    --editable '.[dev]' >&2
echo "$stamp" >.venv/stamp
