#!/usr/bin/env bash
# Record the golden traces of a CybORG 2.1 checkout: ./scripts/record_traces.sh --cyborg-path DIR [--to FOLDER]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
exec .venv/bin/python -m ray_rl.envs.cyborg.golden --to tests/data/cage2 "$@"
