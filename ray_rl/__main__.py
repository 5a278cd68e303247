"""``python -m ray_rl`` is ``ray-rl``."""

import sys

from ray_rl.cli import main

sys.exit(main())
