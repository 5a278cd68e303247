#!/usr/bin/env bash
# Train a defender on this machine: ./scripts/train.sh [flags of `ray-rl train`]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh"
exec "$here/../.venv/bin/ray-rl" train "$@"
