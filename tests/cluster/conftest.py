"""Hosts for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rig import Lan, missing_needs


@pytest.fixture(scope="session")
def able_to_hold_hosts() -> None:
    """Skip, by name, where this machine cannot hold hosts."""
    if missing := missing_needs():
        pytest.skip(f"hosts need {', '.join(missing)}")


@pytest.fixture(scope="module")
def lan(able_to_hold_hosts: None) -> Iterator[Lan]:
    """A laptop, a head and two workers, each with its own address."""
    with Lan() as network:
        yield network
