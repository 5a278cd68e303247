#!/usr/bin/env bash
# The published comparison with 100 workers, on this machine: steps that wait 13 ms on average, five methods.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh"
exec "$here/../.venv/bin/ray-rl" compare --env latency --n-workers 100 --rounds 1 "$@"
