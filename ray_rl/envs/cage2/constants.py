"""CAGE Challenge 2 as tables: hosts, services, exploits, decoys, Blue's actions and Red's.

Everything is what CybORG 2.1 does with its ``Scenario2.yaml`` and images, found by reading and by experiment. Hosts,
ports, exploits and decoys are small integers, sets of them bit masks, so that the simulator needs nothing but integers.
"""

from __future__ import annotations

from typing import Final

import numpy as np

HOSTS: Final = (
    "Defender",
    "Enterprise0",
    "Enterprise1",
    "Enterprise2",
    "Op_Host0",
    "Op_Host1",
    "Op_Host2",
    "Op_Server0",
    "User0",
    "User1",
    "User2",
    "User3",
    "User4",
)
N_HOSTS: Final = len(HOSTS)
DEFENDER, ENTERPRISE0, ENTERPRISE1, ENTERPRISE2, OP_HOST0, OP_HOST1, OP_HOST2, OP_SERVER0 = range(8)
USER0, USER1, USER2, USER3, USER4 = range(8, 13)


def mask_of(*items: int) -> int:
    """The set of some small integers, as a bit mask."""
    return sum(1 << item for item in set(items))


SUBNETS: Final = ("Enterprise", "Operational", "User")
ENTERPRISE, OPERATIONAL, USER = range(3)
SUBNET_HOSTS: Final = np.array(
    [
        mask_of(DEFENDER, ENTERPRISE0, ENTERPRISE1, ENTERPRISE2),
        mask_of(OP_HOST0, OP_HOST1, OP_HOST2, OP_SERVER0),
        mask_of(USER0, USER1, USER2, USER3, USER4),
    ],
    dtype=np.int64,
)
"""[3] host masks."""
SUBNET_OF: Final = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2], dtype=np.int64)
"""[13] subnet of each host."""
OPERATIONAL_HOSTS: Final = int(SUBNET_HOSTS[OPERATIONAL])
ENTERPRISE_GATES: Final = mask_of(ENTERPRISE0, ENTERPRISE1, ENTERPRISE2)
"""A session on one of these lets Red reach the Operational subnet."""

WINDOWS_HOSTS: Final = mask_of(ENTERPRISE1, ENTERPRISE2, USER0, USER1, USER2)

# --- rewards, in tenths -----------------------------------------------------------------------------------------------

HOSTS_WORTH_TEN: Final = mask_of(ENTERPRISE0, ENTERPRISE1, ENTERPRISE2, OP_SERVER0)
"""Each costs Blue 1.0 per step while Red holds a privileged session there."""
HOSTS_WORTH_ONE: Final = mask_of(DEFENDER, OP_HOST0, OP_HOST1, OP_HOST2, USER1, USER2, USER3, USER4)
"""Each costs Blue 0.1 per step; User0 costs nothing."""
SERVICE_DOWN_TENTHS: Final = 100
RESTORE_TENTHS: Final = 10

# --- ports, exploits, decoys ------------------------------------------------------------------------------------------

PORTS: Final = (21, 22, 25, 53, 68, 80, 135, 139, 443, 445, 3389, 3390)
_BIT: Final = {port: i for i, port in enumerate(PORTS)}
PORT_MASK: Final = (1 << len(PORTS)) - 1
SCAN_STORED: Final = 1 << 15
"""Flag in Red's stored port mask of a host: a scan that saw something is stored."""

SOCKETS: Final = (
    (22, 53, 53, 68),
    (22,),
    (22, 135, 3389, 445, 139, 80, 443),
    (22, 135, 3389, 445, 139, 80, 443),
    (22,),
    (22,),
    (22,),
    (22,),
    (22, 21),
    (22, 21),
    (445, 139, 135, 3389),
    (80, 3389, 443, 25),
    (22, 80, 3390, 443, 25),
)
"""Ports of the listening sockets of each clean host."""
BASE_SOCKETS: Final = np.array([len(sockets) for sockets in SOCKETS], dtype=np.int64)
"""[13] listening sockets of a clean host: a scan leaves one event for each."""
BASE_PORTS: Final = np.array([mask_of(*(_BIT[p] for p in sockets)) for sockets in SOCKETS], dtype=np.int64)
"""[13] port masks of a clean host."""

EXPLOITS: Final = (
    "FTPDirectoryTraversal",
    "HarakaRCE",
    "SQLInjection",
    "HTTPSRFI",
    "HTTPRFI",
    "EternalBlue",
    "BlueKeep",
    "SSHBruteForce",
)
"""In falling order of the weight by which Red prefers them (7, 6, 5, 4, 3, 2, 1, 0.1)."""
N_EXPLOITS: Final = len(EXPLOITS)
FTP, HARAKA, SQL, HTTPS_RFI, HTTP_RFI, ETERNAL_BLUE, BLUE_KEEP, SSH = range(N_EXPLOITS)
EXPLOIT_PORTS: Final = (21, 25, 3390, 443, 80, 139, 3389, 22)
"""Port that each exploit attacks."""
NO_EFFECT, USER_SESSION, PRIVILEGED_SESSION = range(3)


def _exploit_outcomes() -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """What each exploit gains on each clean host.

    EternalBlue on Enterprise1 and 2 and BlueKeep on User3 find their port but no process of the right type, so they
    fail there without a trace.
    """
    outcomes = np.full((N_HOSTS, N_EXPLOITS), NO_EFFECT, dtype=np.int64)
    for host in (ENTERPRISE1, ENTERPRISE2):
        outcomes[host, [HTTPS_RFI, HTTP_RFI, BLUE_KEEP]] = USER_SESSION, USER_SESSION, PRIVILEGED_SESSION
    for host in (USER0, USER1):
        outcomes[host, FTP] = PRIVILEGED_SESSION
    outcomes[USER2, [ETERNAL_BLUE, BLUE_KEEP]] = PRIVILEGED_SESSION, USER_SESSION
    outcomes[USER3, [HARAKA, HTTPS_RFI, HTTP_RFI]] = PRIVILEGED_SESSION, USER_SESSION, USER_SESSION
    outcomes[USER4, [HARAKA, SQL, HTTPS_RFI, HTTP_RFI]] = (
        PRIVILEGED_SESSION,
        PRIVILEGED_SESSION,
        USER_SESSION,
        USER_SESSION,
    )
    for host in range(N_HOSTS):
        if host != DEFENDER and 22 in SOCKETS[host]:
            outcomes[host, SSH] = USER_SESSION
    return outcomes


EXPLOIT_OUTCOMES: Final = _exploit_outcomes()
"""[13, 8] NO_EFFECT, USER_SESSION or PRIVILEGED_SESSION."""
SSH_HOSTS: Final = mask_of(*(h for h in range(N_HOSTS) if 22 in SOCKETS[h]))
"""Hosts with a genuine SSH service; on Defender nobody's password can be guessed."""


def _exploit_options() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For every set of ports the exploits that Red considers: SQLInjection needs a web port besides its own."""
    options = np.zeros(PORT_MASK + 1, dtype=np.int64)
    web = mask_of(_BIT[80], _BIT[443])
    for ports in range(PORT_MASK + 1):
        for exploit, port in enumerate(EXPLOIT_PORTS):
            if ports >> _BIT[port] & 1 and (exploit != SQL or ports & web):
                options[ports] |= 1 << exploit
    return options


EXPLOIT_OPTIONS: Final = _exploit_options()
"""[4096] port mask -> exploit mask."""

DECOYS: Final = (
    "DecoyApache",
    "DecoyFemitter",
    "DecoyHarakaSMPT",
    "DecoySmss",
    "DecoySSHD",
    "DecoySvchost",
    "DecoyTomcat",
    "DecoyVsftpd",
)
N_DECOYS: Final = len(DECOYS)
APACHE, FEMITTER, HARAKA_SMTP, SMSS, SSHD, SVCHOST, TOMCAT, VSFTPD = range(N_DECOYS)
DECOY_OPENS: Final = np.array([1 << _BIT[p] for p in (80, 21, 25, 139, 22, 3389, 443, 80)], dtype=np.int64)
"""[8] port that a decoy opens, as a mask."""
DECOY_NEEDS: Final = np.array([1 << _BIT[p] for p in (80, 21, 25, 139, 22, 3389, 443, 21)], dtype=np.int64)
"""[8] port that must be free. DecoyVsftpd tests 21 but opens 80, so it never blocks itself."""
_ANY: Final = (1 << N_HOSTS) - 1
_LINUX: Final = _ANY & ~WINDOWS_HOSTS
DECOY_HOSTS: Final = np.array(
    [_ANY, WINDOWS_HOSTS, _LINUX, WINDOWS_HOSTS, _ANY, WINDOWS_HOSTS, _ANY, _LINUX], dtype=np.int64
)
"""[8] hosts whose operating system fits a decoy."""
_LURES: Final = (HTTP_RFI, FTP, HARAKA, ETERNAL_BLUE, SSH, BLUE_KEEP, HTTPS_RFI, HTTP_RFI)
LURED_BY: Final = np.array(
    [mask_of(*(d for d in range(N_DECOYS) if _LURES[d] == x)) for x in range(N_EXPLOITS)], dtype=np.int64
)
"""[8] exploit -> mask of the decoys that it runs into."""


def _decoy_ports() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    opened = np.zeros(1 << N_DECOYS, dtype=np.int64)
    for decoys in range(1 << N_DECOYS):
        for kind in range(N_DECOYS):
            if decoys >> kind & 1:
                opened[decoys] |= DECOY_OPENS[kind]
    return opened


DECOY_PORTS: Final = _decoy_ports()
"""[256] decoy mask -> mask of the ports they open."""

# --- Red --------------------------------------------------------------------------------------------------------------

RED_SLEEP, DISCOVER_SYSTEMS, DISCOVER_SERVICES, EXPLOIT, ESCALATE, IMPACT = range(6)
RED_ACTIONS: Final = (
    "Sleep",
    "DiscoverRemoteSystems",
    "DiscoverNetworkServices",
    "ExploitRemoteService",
    "PrivilegeEscalate",
    "Impact",
)
FALSE, TRUE, UNKNOWN = range(3)
"""Success of an action, as CybORG reports it."""

B_LINE, MEANDER, SLEEPER = range(3)
"""Codes of the red agents, as in `ray_rl.episodes.RED_AGENTS`."""

ESCALATION_REVEALS: Final = np.zeros(N_HOSTS, dtype=np.int64)
"""[13] hosts whose address Red learns by escalating on a host."""
for _user in (USER1, USER2):
    ESCALATION_REVEALS[_user] = 1 << ENTERPRISE1
for _user in (USER3, USER4):
    ESCALATION_REVEALS[_user] = 1 << ENTERPRISE0
ESCALATION_REVEALS[ENTERPRISE2] = 1 << OP_SERVER0

B_LINE_BACKTRACKS: Final = np.array([0, 1, 2, 2, 2, 2, 5, 5, 5, 5, 9, 9, 9, 12, 13], dtype=np.int64)
"""[15] the state that B_lineAgent falls back to after a failure."""
B_LINE_ENTRY: Final = np.array([0] * USER1 + [ENTERPRISE1, ENTERPRISE1, ENTERPRISE0, ENTERPRISE0], dtype=np.int64)
"""[13] the Enterprise host that B_lineAgent goes to from its first user host."""

# --- Blue -------------------------------------------------------------------------------------------------------------

N_ACTIONS: Final = 145
SLEEP, MONITOR, FIRST_HOST_ACTION = range(3)
ANALYSE_BLOCK, REMOVE_BLOCK, FIRST_DECOY_BLOCK, RESTORE_BLOCK = 0, 1, 2, 10
"""Actions from `FIRST_HOST_ACTION` on come in blocks of 13, one per host."""
_BLOCKS: Final = ("Analyse", "Remove", *DECOYS, "Restore")


def action_index(block: int, host: int) -> int:
    """Index of a host's action among the 145, by its block (`ANALYSE_BLOCK`, …)."""
    return FIRST_HOST_ACTION + N_HOSTS * block + host


ACTION_NAMES: Final = ("Sleep", "Monitor", *(f"{block} {host}" for block in _BLOCKS for host in HOSTS))
"""[145] as CybORG's EnumActionWrapper orders them."""

ACTIVITY_NONE, ACTIVITY_SCAN, ACTIVITY_EXPLOIT = 0, 1, 3
"""The two activity bits of a host in Blue's table, first bit lowest."""
COMPROMISED_NO, COMPROMISED_UNKNOWN, COMPROMISED_USER, COMPROMISED_PRIVILEGED = range(4)
"""The two compromised bits, first bit lowest."""
TABLE_BITS: Final = 4 * N_HOSTS

RULE_SETS: Final = ("head", "leaderboard")
HEAD, LEADERBOARD = range(2)
"""Commits 26ce1c1 and 606813b of CybORG 2.1. In the second, Red's port scans of a host accumulate, and HarakaRCE fails
on User3 or User4 once it has been restored."""
TABLES: Final = ("stock", "corrected")
STOCK, CORRECTED = range(2)
"""Blue's table as the organisers' wrapper makes it, and as the community corrected it."""
