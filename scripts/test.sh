#!/usr/bin/env bash
# Run the tests: ./scripts/test.sh [arguments of pytest]. Slow studies run with -m slow.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
exec .venv/bin/python -m pytest "$@"
