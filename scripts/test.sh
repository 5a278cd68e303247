#!/usr/bin/env bash
# Run the tests, two files at a time, since they mostly wait: ./scripts/test.sh [arguments of pytest].
# One at a time, with what they print: -n 0 -s. Slow studies run with -m slow.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
