"""Hosts on one Linux machine, to rehearse a cluster on: each with its own address, disk, processes and SSH server."""

from rig.host import HOME, KEY, LAPTOP, USER, Host
from rig.lan import Lan, missing_needs
from rig.switch import RigError

__all__ = ["HOME", "KEY", "LAPTOP", "USER", "Host", "Lan", "RigError", "missing_needs"]
