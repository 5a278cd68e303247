"""The compiled simulator: one environment is one row of integers, one step a few integer operations.

In each step Blue acts, then Red (on what it saw in the step before), then the reward is counted and Blue's table drawn.
`ray_rl.envs.cage2.reference` is the same in plain Python, with the reasons; the tests hold the two equal. Functions
here check no bounds: `Cage2Env` does, at the door.

Random numbers are counted, not stored: draw n of an episode is a hash of its seed and n. `forced` outcomes replace
draws when a recording is replayed; `NOTHING_FORCED` leaves them to chance.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ray_rl.envs.cage2.constants import (
    ACTIVITY_EXPLOIT,
    ACTIVITY_NONE,
    ACTIVITY_SCAN,
    ANALYSE_BLOCK,
    B_LINE,
    B_LINE_BACKTRACKS,
    B_LINE_ENTRY,
    BASE_PORTS,
    BASE_SOCKETS,
    COMPROMISED_NO,
    COMPROMISED_PRIVILEGED,
    COMPROMISED_UNKNOWN,
    COMPROMISED_USER,
    CORRECTED,
    DECOY_HOSTS,
    DECOY_NEEDS,
    DECOY_PORTS,
    DEFENDER,
    DISCOVER_SERVICES,
    DISCOVER_SYSTEMS,
    ENTERPRISE,
    ENTERPRISE2,
    ENTERPRISE_GATES,
    ESCALATE,
    ESCALATION_REVEALS,
    EXPLOIT,
    EXPLOIT_OPTIONS,
    EXPLOIT_OUTCOMES,
    FALSE,
    FIRST_DECOY_BLOCK,
    FIRST_HOST_ACTION,
    HARAKA,
    HOSTS_WORTH_ONE,
    HOSTS_WORTH_TEN,
    IMPACT,
    LEADERBOARD,
    LURED_BY,
    MEANDER,
    MONITOR,
    N_HOSTS,
    NO_EFFECT,
    OP_SERVER0,
    OPERATIONAL,
    OPERATIONAL_HOSTS,
    PORT_MASK,
    PRIVILEGED_SESSION,
    RED_SLEEP,
    REMOVE_BLOCK,
    RESTORE_BLOCK,
    RESTORE_TENTHS,
    SCAN_STORED,
    SERVICE_DOWN_TENTHS,
    SSH,
    SSH_HOSTS,
    STOCK,
    SUBNET_HOSTS,
    SUBNET_OF,
    TRUE,
    UNKNOWN,
    USER,
    USER0,
    USER1,
    USER3,
    USER4,
    VSFTPD,
)
from ray_rl.seeding import GOLDEN, mix64, unit_interval

Row = NDArray[np.int64]

# --- layout of a row --------------------------------------------------------------------------------------------------

PRIVILEGED = 0
"""[13] Red's privileged sessions on each host."""
REMOVABLE = PRIVILEGED + N_HOSTS
"""[13] user-level sessions that Remove kills: those whose process number was reported."""
HIDDEN = REMOVABLE + N_HOSTS
"""[13] user-level sessions that Remove does not kill."""
FILES = HIDDEN + N_HOSTS
"""[13] malware: bit 0 from a reverse shell, bit 1 from an escalation."""
DECOY_SET = FILES + N_HOSTS
"""[13] masks of the decoys in place."""
VSFTPDS = DECOY_SET + N_HOSTS
"""[13] DecoyVsftpd in place; the only decoy that can be there more than once."""
PORTS_SEEN = VSFTPDS + N_HOSTS
"""[13] Red's stored port scans, with `SCAN_STORED`."""
REPORTS = PORTS_SEEN + N_HOSTS
"""[13] process numbers that were reported to Blue, who never forgets one."""
_SCALARS = REPORTS + N_HOSTS
(
    SESSION_HOSTS,  # masks of hosts: where Red has any session,
    PRIVILEGED_HOSTS,  # … a privileged one,
    KNOWN_ADDRESSES,  # … whose address Red knows,
    KNOWN_NAMES,  # … whose name Red knows
    KNOWN_SUBNETS,
    SERVICE_RUNNING,  # OTService on Op_Server0
    SERVICE_ACTIVE,
    SERVICE_KILLABLE,  # its process id is known; never again after the first Restore
    SERVICE_KNOWN,  # to Red
    HARAKA_BROKEN,  # mask of hosts, rule set leaderboard only
    COMPROMISED,  # 2 bits per host, at bit 4h + 2 as in the table
    RED_AGENT,
    RULES,
    STREAM,  # of random numbers, as int64
    DRAWS,  # taken so far
    BLUE_SUCCESS,
    RED_ACTION,  # what Red did in this step, and how it went: all it sees of the step
    RED_TARGET,  # host, -1 for none; for a sweep the subnet
    RED_EXPLOIT,  # -1 for none
    RED_SUCCESS,
    RED_SAW_PORTS,
    RED_DETECTED,  # a reverse shell was reported
    EVENT_HOST,  # where Red's action left events, -1 for none
    EVENTS,
    ACTIVITY_STOCK,  # of EVENT_HOST
    ACTIVITY_CORRECTED,
    B_LINE_STATE,
    B_LINE_TARGET,  # first user host, -1 before it is drawn
    B_LINE_BUILT_12,
    SWEPT,  # Meander's lists, as masks: subnets,
    SCANNED,  # addresses,
    EXPLOITED,
    ESCALATED,  # hosts
    MAPPED,
    LAST_EXPLOITED,
    LAST_ESCALATED,
) = range(_SCALARS, _SCALARS + 36)
STATE_SIZE = LAST_ESCALATED + 1

FORCED_EXPLOIT, FORCED_DETECTION, FORCED_REMOVABLE, FORCED_TARGET, FORCED_REUSE = range(5)
N_FORCED = 5
NOTHING_FORCED = np.full(N_FORCED, -1, dtype=np.int64)
"""[5] outcomes that replace draws: exploit, detected (0/1), escalated session removable (0/1), target, reported process
number used again (0/1); -1 draws."""

ENV_SALT = np.uint64(0x656E7669726F6E)
"""Separates the environment's draws from those that pick Blue's actions."""
TOP_EXPLOIT_SHARE = 0.75
DETECTION_RATE = 0.95
PROCESS_NUMBERS = 32767
"""A process gets any of them that is free on its host."""

_mix64 = njit(inline="always")(mix64)
_unit_interval = njit(inline="always")(unit_interval)


@njit(cache=True, nogil=True)
def reset_state(state: Row, seed: np.uint64, red_agent: int, rules: int) -> None:
    """Start an episode.

    Args:
        state: [STATE_SIZE] int64, overwritten.
        seed: The episode's seed.
        red_agent: Index into `ray_rl.episodes.RED_AGENTS`.
        rules: HEAD or LEADERBOARD.
    """
    state[:] = 0
    state[PRIVILEGED + USER0] = 1
    state[SESSION_HOSTS] = state[PRIVILEGED_HOSTS] = 1 << USER0
    state[KNOWN_ADDRESSES] = state[KNOWN_NAMES] = 1 << USER0
    state[KNOWN_SUBNETS] = 1 << USER
    state[SERVICE_RUNNING] = state[SERVICE_ACTIVE] = state[SERVICE_KILLABLE] = 1
    state[RED_AGENT] = red_agent
    state[RULES] = rules
    state[STREAM] = np.int64(_mix64(np.uint64(seed) ^ ENV_SALT))
    state[RED_SUCCESS] = UNKNOWN
    state[RED_TARGET] = state[RED_EXPLOIT] = state[EVENT_HOST] = -1
    state[B_LINE_TARGET] = state[LAST_EXPLOITED] = state[LAST_ESCALATED] = -1


@njit(cache=True, nogil=True)
def step_state(state: Row, action: int, forced: Row) -> float:
    """Take one step.

    Args:
        state: [STATE_SIZE] int64, changed in place.
        action: Blue's action, 0…144.
        forced: [N_FORCED] outcomes that replace draws, or `NOTHING_FORCED`.

    Returns:
        Blue's reward, a multiple of 0.1.
    """
    decoy_host, malware_host = _blue_acts(state, action)
    _red_acts(state, forced)
    _show(state, action, decoy_host, malware_host)
    tenths = 10 * _popcount(state[PRIVILEGED_HOSTS] & HOSTS_WORTH_TEN)
    tenths += _popcount(state[PRIVILEGED_HOSTS] & HOSTS_WORTH_ONE)
    if not state[SERVICE_RUNNING]:
        tenths += SERVICE_DOWN_TENTHS
    if action >= FIRST_HOST_ACTION + RESTORE_BLOCK * N_HOSTS:
        tenths += RESTORE_TENTHS
    return -tenths / 10.0


@njit(cache=True, nogil=True)
def table_of(state: Row, table: int) -> int:
    """Blue's table after a step, as one number: host h has its four bits from bit 4h on, the table's first one lowest.

    Args:
        state: [STATE_SIZE] int64.
        table: STOCK or CORRECTED.
    """
    word = state[COMPROMISED]
    if state[EVENT_HOST] >= 0:
        activity = state[ACTIVITY_STOCK] if table == STOCK else state[ACTIVITY_CORRECTED]
        word |= activity << (4 * state[EVENT_HOST])
    return word


# --- Blue -------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def decoy_fits(decoys: int, kind: int, host: int) -> bool:
    """Whether a decoy can be placed on a host that holds a set of decoys: its system fits and its port is free."""
    ports = BASE_PORTS[host] | DECOY_PORTS[decoys]
    return DECOY_HOSTS[kind] >> host & 1 == 1 and ports & DECOY_NEEDS[kind] == 0


@njit(cache=True, nogil=True)
def _blue_acts(state: Row, action: int) -> tuple[int, int]:
    """Returns the host that got a decoy and the host whose analysis showed malware, -1 for none."""
    state[BLUE_SUCCESS] = TRUE
    if action < FIRST_HOST_ACTION:
        if action != MONITOR:
            state[BLUE_SUCCESS] = UNKNOWN
        return -1, -1
    block = (action - FIRST_HOST_ACTION) // N_HOSTS
    host = (action - FIRST_HOST_ACTION) - block * N_HOSTS
    if block == ANALYSE_BLOCK:
        return -1, (host if state[FILES + host] else -1)
    if block == REMOVE_BLOCK:
        state[REMOVABLE + host] = 0
        _update_session_masks(state, host)
        return -1, -1
    if block == RESTORE_BLOCK:
        _restore(state, host)
        return -1, -1
    kind = block - FIRST_DECOY_BLOCK
    if not decoy_fits(state[DECOY_SET + host], kind, host):
        state[BLUE_SUCCESS] = FALSE
        return -1, -1
    state[DECOY_SET + host] |= 1 << kind
    if kind == VSFTPD:
        state[VSFTPDS + host] += 1
    return host, -1


@njit(cache=True, nogil=True)
def _restore(state: Row, host: int) -> None:
    state[PRIVILEGED + host] = 1 if host == USER0 else 0
    state[REMOVABLE + host] = state[HIDDEN + host] = state[FILES + host] = 0
    state[DECOY_SET + host] = state[VSFTPDS + host] = 0
    _update_session_masks(state, host)
    if host == OP_SERVER0:
        state[SERVICE_RUNNING] = state[SERVICE_ACTIVE] = 1
        state[SERVICE_KILLABLE] = 0
    elif state[RULES] == LEADERBOARD and (host in (USER3, USER4)):
        state[HARAKA_BROKEN] |= 1 << host


@njit(cache=True, nogil=True, inline="always")
def _update_session_masks(state: Row, host: int) -> None:
    bit = 1 << host
    if state[PRIVILEGED + host]:
        state[PRIVILEGED_HOSTS] |= bit
    else:
        state[PRIVILEGED_HOSTS] &= ~bit
    if state[PRIVILEGED + host] + state[REMOVABLE + host] + state[HIDDEN + host]:
        state[SESSION_HOSTS] |= bit
    else:
        state[SESSION_HOSTS] &= ~bit


# --- what Red's actions do --------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _red_acts(state: Row, forced: Row) -> None:
    if state[RED_AGENT] == B_LINE:
        action, target = _b_line_chooses(state, forced)
    elif state[RED_AGENT] == MEANDER:
        action, target = _meander_chooses(state, forced)
    else:
        action, target = RED_SLEEP, -1
    state[RED_ACTION] = action
    state[RED_TARGET] = target
    state[RED_EXPLOIT] = state[EVENT_HOST] = -1
    state[RED_SAW_PORTS] = state[RED_DETECTED] = state[EVENTS] = 0
    if action == DISCOVER_SYSTEMS:
        state[RED_SUCCESS] = _sweep(state, target)
    elif action == DISCOVER_SERVICES:
        state[RED_SUCCESS] = _scan(state, target)
    elif action == EXPLOIT:
        state[RED_SUCCESS] = _exploit(state, target, forced)
    elif action == ESCALATE:
        state[RED_SUCCESS] = _escalate(state, target, forced)
    elif action == IMPACT:
        state[RED_SUCCESS] = _impact(state)
    else:
        state[RED_SUCCESS] = UNKNOWN


@njit(cache=True, nogil=True, inline="always")
def _reachable(state: Row, host: int) -> bool:
    return SUBNET_OF[host] != OPERATIONAL or state[SESSION_HOSTS] & ENTERPRISE_GATES != 0


@njit(cache=True, nogil=True, inline="always")
def _leave_events(state: Row, host: int, count: int, n_ports: int, detected: bool) -> None:
    """Note the events of Red's action; `_show` turns the number of distinct ports into an activity."""
    state[EVENT_HOST] = host
    state[EVENTS] = count
    state[RED_DETECTED] = detected
    state[ACTIVITY_STOCK] = n_ports


@njit(cache=True, nogil=True)
def _sweep(state: Row, subnet: int) -> int:
    if subnet == OPERATIONAL and state[SESSION_HOSTS] & ENTERPRISE_GATES == 0:
        return FALSE
    state[KNOWN_ADDRESSES] |= SUBNET_HOSTS[subnet]
    state[KNOWN_SUBNETS] |= 1 << subnet
    return TRUE


@njit(cache=True, nogil=True)
def _scan(state: Row, host: int) -> int:
    """A host out of reach answers nothing, and Red takes that for a success."""
    if not _reachable(state, host):
        return TRUE
    decoys = state[DECOY_SET + host]
    ports = BASE_PORTS[host] | DECOY_PORTS[decoys]
    sockets = BASE_SOCKETS[host] + _popcount(decoys & ~(1 << VSFTPD)) + state[VSFTPDS + host]
    if state[RULES] == LEADERBOARD:
        state[PORTS_SEEN + host] |= ports | SCAN_STORED
    else:
        state[PORTS_SEEN + host] = ports | SCAN_STORED
    state[KNOWN_ADDRESSES] |= 1 << host
    state[RED_SAW_PORTS] = 1
    _leave_events(state, host, sockets, _popcount(ports), False)
    return TRUE


@njit(cache=True, nogil=True)
def _exploit(state: Row, host: int, forced: Row) -> int:
    options = EXPLOIT_OPTIONS[state[PORTS_SEEN + host] & PORT_MASK]
    if options == 0:
        return FALSE
    exploit = _pick_exploit(state, options, forced)
    state[RED_EXPLOIT] = exploit
    if not _reachable(state, host):
        return FALSE
    lured = state[DECOY_SET + host] & LURED_BY[exploit] != 0
    if exploit == SSH:
        return _brute_force(state, host, lured, forced)
    if exploit == HARAKA and state[HARAKA_BROKEN] >> host & 1:
        _leave_events(state, host, 1, 1, False)
        return FALSE
    outcome = EXPLOIT_OUTCOMES[host, exploit]
    if outcome == NO_EFFECT:
        if lured:
            _leave_events(state, host, 2, 1, False)
        return FALSE
    state[FILES + host] |= 1
    detected = forced[FORCED_DETECTION] == 1 if forced[FORCED_DETECTION] >= 0 else _draw(state) < DETECTION_RATE
    if outcome == PRIVILEGED_SESSION:
        state[PRIVILEGED + host] += 1
    elif detected or _reuses_number(state, host, forced):
        state[REMOVABLE + host] += 1
    else:
        state[HIDDEN + host] += 1
    if detected:
        state[REPORTS + host] += 1
    _take_host(state, host)
    _leave_events(state, host, 2 if detected else 1, 2 if detected else 1, detected)
    return TRUE


@njit(cache=True, nogil=True, inline="always")
def _pick_exploit(state: Row, options: int, forced: Row) -> int:
    """The lowest bit is the exploit that Red likes best: it takes it three times in four, else any other one."""
    if forced[FORCED_EXPLOIT] >= 0:
        return forced[FORCED_EXPLOIT]
    others = options & (options - 1)
    if others == 0 or _draw(state) < TOP_EXPLOIT_SHARE:
        return _nth_set_bit(options, 0)
    return _nth_set_bit(others, int(_draw(state) * _popcount(others)))


@njit(cache=True, nogil=True, inline="always")
def _reuses_number(state: Row, host: int, forced: Row) -> bool:
    """Whether a process that was not reported happens to bear a number that was: Remove kills it then."""
    if forced[FORCED_REUSE] >= 0:
        return forced[FORCED_REUSE] == 1
    reports = state[REPORTS + host]
    return reports > 0 and _draw(state) * PROCESS_NUMBERS < reports


@njit(cache=True, nogil=True, inline="always")
def _brute_force(state: Row, host: int, lured: bool, forced: Row) -> int:
    genuine = SSH_HOSTS >> host & 1 == 1
    if not genuine and not lured:
        return FALSE
    if not genuine or host == DEFENDER:
        _leave_events(state, host, 10, 1, False)
        return FALSE
    state[(REMOVABLE if _reuses_number(state, host, forced) else HIDDEN) + host] += 1
    _take_host(state, host)
    _leave_events(state, host, 11, 1, False)
    return TRUE


@njit(cache=True, nogil=True, inline="always")
def _take_host(state: Row, host: int) -> None:
    state[KNOWN_NAMES] |= 1 << host
    state[KNOWN_ADDRESSES] |= 1 << host
    _update_session_masks(state, host)


@njit(cache=True, nogil=True)
def _escalate(state: Row, host: int, forced: Row) -> int:
    if state[SESSION_HOSTS] >> host & 1 == 0:
        return FALSE
    if state[PRIVILEGED + host] == 0:
        removable, hidden = state[REMOVABLE + host], state[HIDDEN + host]
        if removable and hidden:
            if forced[FORCED_REMOVABLE] >= 0:
                takes_removable = forced[FORCED_REMOVABLE] == 1
            else:
                takes_removable = _draw(state) * (removable + hidden) < removable
        else:
            takes_removable = removable > 0
        state[(REMOVABLE if takes_removable else HIDDEN) + host] -= 1
        state[PRIVILEGED + host] += 1
        state[FILES + host] |= 2
        _update_session_masks(state, host)
    state[KNOWN_ADDRESSES] |= 1 << host | ESCALATION_REVEALS[host]
    state[KNOWN_SUBNETS] |= 1 << SUBNET_OF[host]
    if host == OP_SERVER0:
        state[SERVICE_KNOWN] = 1
    return TRUE


@njit(cache=True, nogil=True)
def _impact(state: Row) -> int:
    if state[SESSION_HOSTS] >> OP_SERVER0 & 1 == 0 or not state[SERVICE_KNOWN]:
        return FALSE
    if state[SERVICE_ACTIVE]:
        state[SERVICE_ACTIVE] = 0
        if state[SERVICE_KILLABLE]:
            state[SERVICE_RUNNING] = 0
    return TRUE


# --- how Red chooses --------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _b_line_chooses(state: Row, forced: Row) -> tuple[int, int]:
    """B_lineAgent: a chain of 15 states, one further on success, back on failure."""
    while True:
        if state[RED_SUCCESS] == TRUE:
            state[B_LINE_STATE] = min(state[B_LINE_STATE] + 1, 14)
        else:
            state[B_LINE_STATE] = B_LINE_BACKTRACKS[state[B_LINE_STATE]]
        where = state[B_LINE_STATE]
        if where == 12 and not state[B_LINE_BUILT_12]:
            if not state[RED_SAW_PORTS]:
                state[B_LINE_STATE] = 0  # an empty scan of Op_Server0: starts over, and its success counts once more
                continue
            state[B_LINE_BUILT_12] = 1
        break
    if where == 1 and state[B_LINE_TARGET] < 0:
        if forced[FORCED_TARGET] >= 0:
            state[B_LINE_TARGET] = forced[FORCED_TARGET]
        else:
            state[B_LINE_TARGET] = USER1 + int(_draw(state) * 4)
    user = state[B_LINE_TARGET]
    if where == 0:
        return DISCOVER_SYSTEMS, USER
    if where <= 3:
        return _approach(where - 1), user
    if where <= 6:
        return _approach(where - 4), B_LINE_ENTRY[user]
    if where == 7:
        return DISCOVER_SYSTEMS, ENTERPRISE
    if where <= 10:
        return _approach(where - 8), ENTERPRISE2
    if where <= 13:
        return _approach(where - 11), OP_SERVER0
    return IMPACT, OP_SERVER0


@njit(cache=True, nogil=True, inline="always")
def _approach(stage: int) -> int:
    """Scan, exploit, escalate: the three stages of taking a host."""
    return DISCOVER_SERVICES + stage


@njit(cache=True, nogil=True)
def _meander_chooses(state: Row, forced: Row) -> tuple[int, int]:
    """RedMeanderAgent: takes whatever it knows, in random order; forgets whole subnets when an exploit fails."""
    _meander_looks_back(state)
    if state[ESCALATED] >> OP_SERVER0 & 1:
        state[LAST_ESCALATED] = OP_SERVER0
        return IMPACT, OP_SERVER0
    subnets = state[KNOWN_SUBNETS] & ~state[SWEPT]
    if subnets:
        subnet = _nth_set_bit(subnets, 0)
        state[SWEPT] |= 1 << subnet
        return DISCOVER_SYSTEMS, subnet
    targets = state[KNOWN_ADDRESSES] & ~state[SCANNED]
    if targets:
        target = _pick_target(state, targets, forced)
        state[SCANNED] |= 1 << target
        return DISCOVER_SERVICES, target
    targets = state[KNOWN_NAMES] & ~state[ESCALATED] & ~(state[MAPPED] & ~state[EXPLOITED])
    if targets:
        target = _pick_target(state, targets, forced)
        state[ESCALATED] |= 1 << target
        state[LAST_ESCALATED] = target
        return ESCALATE, target
    target = _pick_target(state, state[KNOWN_ADDRESSES] & ~state[EXPLOITED], forced)
    state[EXPLOITED] |= 1 << target
    state[LAST_EXPLOITED] = target
    return EXPLOIT, target


@njit(cache=True, nogil=True)
def _meander_looks_back(state: Row) -> None:
    exploited = state[LAST_EXPLOITED]
    if exploited >= 0:
        state[LAST_EXPLOITED] = -1
        if state[RED_SUCCESS] == TRUE:
            state[MAPPED] |= 1 << exploited
        else:
            state[EXPLOITED] &= ~(1 << exploited)
            lost = state[ESCALATED] & OPERATIONAL_HOSTS
            if lost == 0:
                lost = state[ESCALATED] & ENTERPRISE_GATES
            state[ESCALATED] &= ~lost
            state[EXPLOITED] &= ~lost
    escalated = state[LAST_ESCALATED]
    if escalated >= 0:
        state[LAST_ESCALATED] = -1
        if state[RED_SUCCESS] == FALSE:
            state[ESCALATED] &= ~(1 << escalated)
            state[EXPLOITED] &= ~(state[MAPPED] & 1 << escalated)


@njit(cache=True, nogil=True, inline="always")
def _pick_target(state: Row, targets: int, forced: Row) -> int:
    if forced[FORCED_TARGET] >= 0:
        return forced[FORCED_TARGET]
    return _nth_set_bit(targets, int(_draw(state) * _popcount(targets)))


# --- what Blue sees ---------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _show(state: Row, action: int, decoy_host: int, malware_host: int) -> None:
    """Draw this step's table: Restore clears, Remove blurs, an exploit accuses, malware convicts, in that order."""
    compromised = state[COMPROMISED]
    if action >= FIRST_HOST_ACTION + REMOVE_BLOCK * N_HOSTS:
        block = (action - FIRST_HOST_ACTION) // N_HOSTS
        shift = 4 * (action - FIRST_HOST_ACTION - block * N_HOSTS) + 2
        if block == RESTORE_BLOCK:
            compromised &= ~(3 << shift)
        elif block == REMOVE_BLOCK and compromised >> shift & 3 != COMPROMISED_NO:
            compromised = compromised & ~(3 << shift) | COMPROMISED_UNKNOWN << shift
    host = state[EVENT_HOST]
    if host >= 0:
        n_ports = state[ACTIVITY_STOCK]
        new_decoy = host == decoy_host
        for table in (STOCK, CORRECTED):
            state[ACTIVITY_STOCK + table] = _activity(
                state[EVENTS] + new_decoy, n_ports, state[RED_DETECTED], new_decoy and table != CORRECTED
            )
        if state[ACTIVITY_CORRECTED] == ACTIVITY_EXPLOIT:
            shift = 4 * host + 2
            compromised = compromised & ~(3 << shift) | COMPROMISED_USER << shift
    if malware_host >= 0:
        compromised |= COMPROMISED_PRIVILEGED << (4 * malware_host + 2)
    state[COMPROMISED] = compromised


@njit(cache=True, nogil=True, inline="always")
def _activity(n_items: int, n_ports: int, shell_reported: int, hidden_by_decoy: bool) -> int:
    """How the table reads a host's events: a decoy that Blue placed there in this step counts as one more item."""
    if n_items >= 3 and n_ports >= 3:
        return ACTIVITY_SCAN
    if shell_reported or (n_items >= 3 and n_ports == 1):
        return ACTIVITY_EXPLOIT
    return ACTIVITY_NONE if hidden_by_decoy else ACTIVITY_SCAN


# --- small tools ------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _draw(state: Row) -> float:
    """The next uniform of the episode, in [0, 1)."""
    state[DRAWS] += 1
    return _unit_interval(_mix64(np.uint64(state[STREAM]) + np.uint64(state[DRAWS]) * GOLDEN))


@njit(cache=True, nogil=True, inline="always")
def _popcount(mask: int) -> int:
    """Number of set bits of a mask below 2**16."""
    mask = mask - (mask >> 1 & 0x5555)
    mask = (mask & 0x3333) + (mask >> 2 & 0x3333)
    mask = mask + (mask >> 4) & 0x0F0F
    return mask + (mask >> 8) & 0x1F


@njit(cache=True, nogil=True, inline="always")
def _nth_set_bit(mask: int, n: int) -> int:
    """Position of the n-th set bit, counted from 0."""
    for _ in range(n):
        mask &= mask - 1
    return _popcount((mask & -mask) - 1)
