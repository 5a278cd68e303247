#!/usr/bin/env bash
# Train a defender on a Ray cluster: ./scripts/submit.sh train --address http://HOST:8265 --run-dir s3://BUCKET/RUN …
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh"
exec "$here/../.venv/bin/ray-rl" submit "$@"
