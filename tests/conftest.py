"""What all tests need."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

# A shell that starts the tests in the background lets them ignore Ctrl-C, and with them every process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cyborg_path() -> str:
    path = os.environ.get("RAY_RL_CYBORG_PATH")
    if path:
        return path
    spec = importlib.util.find_spec("CybORG")
    if spec is None or spec.origin is None:
        pytest.skip("CybORG 2.1 is not installed, and RAY_RL_CYBORG_PATH names no folder of a checkout")
    return str(Path(spec.origin).parent)
