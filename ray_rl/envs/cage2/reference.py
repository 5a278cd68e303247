"""CAGE-2 step by step in plain Python: slow, obvious, and what the compiled simulator is held against.

Read this to understand the rules of CybORG 2.1; read `simulator` to see them fast. Random outcomes come from an
`Oracle`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ray_rl.envs.cage2.constants import (
    ACTIVITY_EXPLOIT,
    ACTIVITY_NONE,
    ACTIVITY_SCAN,
    ANALYSE_BLOCK,
    B_LINE_BACKTRACKS,
    B_LINE_ENTRY,
    BASE_PORTS,
    BASE_SOCKETS,
    COMPROMISED_NO,
    COMPROMISED_PRIVILEGED,
    COMPROMISED_UNKNOWN,
    COMPROMISED_USER,
    DECOY_HOSTS,
    DECOY_NEEDS,
    DECOY_OPENS,
    DEFENDER,
    DISCOVER_SERVICES,
    DISCOVER_SYSTEMS,
    ENTERPRISE,
    ENTERPRISE0,
    ENTERPRISE1,
    ENTERPRISE2,
    ESCALATE,
    EXPLOIT,
    EXPLOIT_OPTIONS,
    EXPLOIT_OUTCOMES,
    FALSE,
    FIRST_DECOY_BLOCK,
    FIRST_HOST_ACTION,
    HARAKA,
    IMPACT,
    LURED_BY,
    MONITOR,
    N_EXPLOITS,
    N_HOSTS,
    NO_EFFECT,
    OP_HOST0,
    OP_HOST1,
    OP_HOST2,
    OP_SERVER0,
    OPERATIONAL,
    PRIVILEGED_SESSION,
    RED_SLEEP,
    REMOVE_BLOCK,
    RESTORE_BLOCK,
    SLEEP,
    SSH,
    SSH_HOSTS,
    SUBNET_OF,
    TRUE,
    UNKNOWN,
    USER,
    USER0,
    USER1,
    USER2,
    USER3,
    USER4,
)

_WEIGHT = [0.1] + [1.0] * 3 + [0.1] * 3 + [1.0] + [0.0] + [0.1] * 4
"""What a privileged session on each host costs Blue per step."""
_REVEALS = {USER1: ENTERPRISE1, USER2: ENTERPRISE1, USER3: ENTERPRISE0, USER4: ENTERPRISE0, ENTERPRISE2: OP_SERVER0}
"""Host whose address Red finds by escalating on another."""
_ENTERPRISE_GATES = (ENTERPRISE0, ENTERPRISE1, ENTERPRISE2)
_OPERATIONAL_HOSTS = (OP_SERVER0, OP_HOST0, OP_HOST1, OP_HOST2)


class Oracle(Protocol):
    """Decides what chance decides in CybORG."""

    def exploit(self, options: list[int]) -> int:
        """Pick among two or more exploits, best first: the best three times in four, else any other."""
        ...

    def detected(self) -> bool:
        """Whether a reverse shell is reported: 95 times in 100."""
        ...

    def reuses_number(self, reports: int) -> bool:
        """Whether a new process bears one of the process numbers that were reported: each of 32767 alike."""
        ...

    def escalates_removable(self, removable: int, hidden: int) -> bool:
        """Which kind of session an escalation takes: each session alike."""
        ...

    def target(self, hosts: list[int]) -> int:
        """Pick a host, each alike."""
        ...


@dataclass
class Sessions:
    """Red's sessions on a host; Remove kills the removable ones, whose process number was reported."""

    privileged: int = 0
    removable: int = 0
    hidden: int = 0

    @property
    def any(self) -> bool:
        """Whether Red holds the host at all."""
        return self.privileged + self.removable + self.hidden > 0


@dataclass
class Events:
    """What Red's action left on a host: how many events, on how many ports, and whether a shell was reported."""

    host: int
    count: int
    n_ports: int
    shell_reported: bool = False


@dataclass
class BLine:
    """Memory of B_lineAgent."""

    state: int = 0
    user: int | None = None
    built_12: bool = False


@dataclass
class Meander:
    """Memory of RedMeanderAgent."""

    swept: set[int] = field(default_factory=set)
    scanned: set[int] = field(default_factory=set)
    exploited: set[int] = field(default_factory=set)
    escalated: set[int] = field(default_factory=set)
    mapped: set[int] = field(default_factory=set)
    last_exploited: int | None = None
    last_escalated: int | None = None


@dataclass
class Shown:
    """What one step shows.

    Attributes:
        reward: Blue's reward.
        activity: Per table (stock, corrected) the activity of each host.
        compromised: Compromised entry of each host, the same in both tables.
    """

    reward: float
    activity: tuple[list[int], list[int]]
    compromised: list[int]


class ReferenceGame:
    """One episode.

    Args:
        red_agent: ``bline``, ``meander`` or ``sleep``.
        rules: ``head`` or ``leaderboard``.
        oracle: Decides what chance decides.
    """

    def __init__(self, red_agent: str, rules: str, oracle: Oracle) -> None:
        self.red_agent = red_agent
        self.accumulates_scans = self.breaks_haraka = rules == "leaderboard"
        self.oracle = oracle
        self.sessions = [Sessions() for _ in range(N_HOSTS)]
        self.sessions[USER0].privileged = 1
        self.files = [0] * N_HOSTS
        self.decoys: list[list[int]] = [[] for _ in range(N_HOSTS)]
        self.ports_seen: list[int | None] = [None] * N_HOSTS
        self.reports = [0] * N_HOSTS
        self.known_addresses = {USER0}
        self.known_names = {USER0}
        self.known_subnets = {USER}
        self.service_running = self.service_active = self.service_killable = True
        self.service_known = False
        self.haraka_broken: set[int] = set()
        self.compromised = [COMPROMISED_NO] * N_HOSTS
        self.blue_success = UNKNOWN
        self.red_action = RED_SLEEP
        self.red_success = UNKNOWN
        self.red_saw_ports = False
        self.b_line = BLine()
        self.meander = Meander()

    def step(self, action: int) -> Shown:
        """Blue acts, then Red, then the reward is counted and the table drawn."""
        decoy_host, malware_host = self._blue_acts(action)
        events = self._red_acts()
        cost = 1.0 if action >= FIRST_HOST_ACTION + N_HOSTS * RESTORE_BLOCK else 0.0
        held = sum(_WEIGHT[h] for h in range(N_HOSTS) if self.sessions[h].privileged)
        down = 0.0 if self.service_running else 10.0
        reward = round(-down - round(held, 1) - cost, 1)
        return Shown(reward, self._show(action, decoy_host, malware_host, events), list(self.compromised))

    # --- Blue -------------------------------------------------------------------------------------------------------

    def _blue_acts(self, action: int) -> tuple[int | None, int | None]:
        """Returns the host that got a decoy, and the host on which malware was found."""
        self.blue_success = TRUE
        if action in (SLEEP, MONITOR):  # Monitor runs by itself after every step: here it does nothing
            self.blue_success = UNKNOWN if action == SLEEP else TRUE
            return None, None
        block, host = divmod(action - FIRST_HOST_ACTION, N_HOSTS)
        if block == ANALYSE_BLOCK:  # sees files as they are before Red acts in this step
            return None, (host if self.files[host] else None)
        if block == REMOVE_BLOCK:  # only what bears a reported number and is not escalated; always reports success
            self.sessions[host].removable = 0
            return None, None
        if block == RESTORE_BLOCK:
            self._restore(host)
            return None, None
        kind = block - FIRST_DECOY_BLOCK
        fits = DECOY_HOSTS[kind] >> host & 1 and not self._open_ports(host) & DECOY_NEEDS[kind]
        if not fits:
            self.blue_success = FALSE
            return None, None
        self.decoys[host].append(kind)
        return host, None

    def _restore(self, host: int) -> None:
        """Make everything as it was, but for three things.

        Red's own session on User0 stays; OTService can never be killed again in the episode, since the backup has no
        process id; and in the older version Haraka loses its version.
        """
        self.sessions[host] = Sessions(privileged=1 if host == USER0 else 0)
        self.files[host] = 0
        self.decoys[host] = []
        if host == OP_SERVER0:
            self.service_running = self.service_active = True
            self.service_killable = False
        if self.breaks_haraka and host in (USER3, USER4):
            self.haraka_broken.add(host)

    def _open_ports(self, host: int) -> int:
        ports = int(BASE_PORTS[host])
        for kind in self.decoys[host]:
            ports |= int(DECOY_OPENS[kind])
        return ports

    # --- Red --------------------------------------------------------------------------------------------------------

    def _sleeper_chooses(self) -> tuple[int, int]:
        return RED_SLEEP, -1

    def _red_acts(self) -> Events | None:
        chooses = {"bline": self._b_line_chooses, "meander": self._meander_chooses, "sleep": self._sleeper_chooses}
        self.red_action, target = chooses[self.red_agent]()
        self.red_saw_ports = False
        if self.red_action == DISCOVER_SYSTEMS:
            self.red_success, events = self._sweep(target), None
        elif self.red_action == DISCOVER_SERVICES:
            self.red_success, events = TRUE, self._scan(target)
        elif self.red_action == EXPLOIT:
            self.red_success, events = self._exploit(target)
        elif self.red_action == ESCALATE:
            self.red_success, events = self._escalate(target), None
        elif self.red_action == IMPACT:
            self.red_success, events = self._impact(), None
        else:
            self.red_success, events = UNKNOWN, None
        return events

    def _reaches(self, host: int) -> bool:
        """Red works from User0: the operational subnet opens with any session on Enterprise0, 1 or 2."""
        return SUBNET_OF[host] != OPERATIONAL or any(self.sessions[gate].any for gate in _ENTERPRISE_GATES)

    def _sweep(self, subnet: int) -> int:
        if subnet == OPERATIONAL and not self._reaches(OP_SERVER0):
            return FALSE
        self.known_addresses |= {h for h in range(N_HOSTS) if SUBNET_OF[h] == subnet}
        self.known_subnets.add(subnet)
        return TRUE

    def _scan(self, host: int) -> Events | None:
        """A host out of reach answers nothing, which Red takes for a success; what it knew of the host stays."""
        if not self._reaches(host):
            return None
        ports = self._open_ports(host)
        known = self.ports_seen[host]
        self.ports_seen[host] = ports | known if self.accumulates_scans and known is not None else ports
        self.known_addresses.add(host)
        self.red_saw_ports = True
        return Events(host, int(BASE_SOCKETS[host]) + len(self.decoys[host]), ports.bit_count())

    def _exploit(self, host: int) -> tuple[int, Events | None]:
        """Red picks by the ports of its last scan, however old; what counts is what listens now."""
        seen = self.ports_seen[host]
        options = [x for x in range(N_EXPLOITS) if seen is not None and EXPLOIT_OPTIONS[seen] >> x & 1]
        if not options:
            return FALSE, None
        exploit = options[0] if len(options) == 1 else self.oracle.exploit(options)
        if not self._reaches(host):
            return FALSE, None
        lured = any(LURED_BY[exploit] >> kind & 1 for kind in self.decoys[host])
        if exploit == SSH:
            return self._brute_force(host, lured)
        if exploit == HARAKA and host in self.haraka_broken:
            return FALSE, Events(host, 1, 1)
        outcome = EXPLOIT_OUTCOMES[host, exploit]
        if outcome == NO_EFFECT:  # two events when a decoy answers, none when nothing does
            return FALSE, Events(host, 2, 1) if lured else None
        self.files[host] |= 1
        detected = self.oracle.detected()
        if outcome == PRIVILEGED_SESSION:
            self.sessions[host].privileged += 1
        elif detected or self._reuses_number(host):
            self.sessions[host].removable += 1
        else:
            self.sessions[host].hidden += 1
        self.reports[host] += detected
        self.known_names.add(host)
        self.known_addresses.add(host)
        return TRUE, Events(host, 2, 2, shell_reported=True) if detected else Events(host, 1, 1)

    def _brute_force(self, host: int, lured: bool) -> tuple[int, Events | None]:
        """SSH: always seen, whether it succeeds or not; leaves no file, and its process is never reported."""
        genuine = bool(SSH_HOSTS >> host & 1)
        if not genuine and not lured:
            return FALSE, None
        if not genuine or host == DEFENDER:
            return FALSE, Events(host, 10, 1)
        if self._reuses_number(host):
            self.sessions[host].removable += 1
        else:
            self.sessions[host].hidden += 1
        self.known_names.add(host)
        self.known_addresses.add(host)
        return TRUE, Events(host, 11, 1)

    def _reuses_number(self, host: int) -> bool:
        """Blue never forgets a reported number, not even by a Restore; an unreported process may happen to bear it."""
        return self.reports[host] > 0 and self.oracle.reuses_number(self.reports[host])

    def _escalate(self, host: int) -> int:
        here = self.sessions[host]
        if not here.any:
            return FALSE
        if not here.privileged:
            if here.removable and here.hidden:
                takes_removable = self.oracle.escalates_removable(here.removable, here.hidden)
            else:
                takes_removable = here.removable > 0
            if takes_removable:
                here.removable -= 1
            else:
                here.hidden -= 1
            here.privileged += 1
            self.files[host] |= 2
        self.known_addresses.add(host)
        self.known_subnets.add(int(SUBNET_OF[host]))
        if host in _REVEALS:
            self.known_addresses.add(_REVEALS[host])
        if host == OP_SERVER0:
            self.service_known = True
        return TRUE

    def _impact(self) -> int:
        """Needs a session of any level and knowledge of OTService; stops it only once, and only before any Restore."""
        if not self.sessions[OP_SERVER0].any or not self.service_known:
            return FALSE
        if self.service_active:
            self.service_active = False
            if self.service_killable:
                self.service_running = False
        return TRUE

    def _b_line_chooses(self) -> tuple[int, int]:
        """A chain of states: on success one further, otherwise back to where the broken link was made."""
        memory = self.b_line
        while True:
            if self.red_success == TRUE:
                memory.state = min(memory.state + 1, 14)
            else:
                memory.state = int(B_LINE_BACKTRACKS[memory.state])
            if memory.state != 12 or memory.built_12:
                break
            if self.red_saw_ports:
                memory.built_12 = True
                break
            memory.state = 0  # nothing answered on Op_Server0: starts over, and the success counts a second time
        if memory.state == 1 and memory.user is None:
            memory.user = self.oracle.target([USER1, USER2, USER3, USER4])
        if memory.state == 0:
            return DISCOVER_SYSTEMS, USER
        if memory.state == 7:
            return DISCOVER_SYSTEMS, ENTERPRISE
        if memory.state == 14:
            return IMPACT, OP_SERVER0
        assert memory.user is not None
        first_of = {1: memory.user, 4: int(B_LINE_ENTRY[memory.user]), 8: ENTERPRISE2, 11: OP_SERVER0}
        first = max(state for state in first_of if state <= memory.state)
        return (DISCOVER_SERVICES, EXPLOIT, ESCALATE)[memory.state - first], first_of[first]

    def _meander_chooses(self) -> tuple[int, int]:
        """Impact if it can, else sweep, scan, escalate, exploit, whatever is left of each, in this order."""
        memory = self.meander
        self._meander_looks_back()
        if OP_SERVER0 in memory.escalated:
            memory.last_escalated = OP_SERVER0
            return IMPACT, OP_SERVER0
        for subnet in sorted(self.known_subnets - memory.swept):
            memory.swept.add(subnet)
            return DISCOVER_SYSTEMS, subnet
        if new := sorted(self.known_addresses - memory.scanned):
            target = self.oracle.target(new)
            memory.scanned.add(target)
            return DISCOVER_SERVICES, target
        lost = memory.mapped - memory.exploited
        if new := sorted(self.known_names - memory.escalated - lost):
            target = self.oracle.target(new)
            memory.escalated.add(target)
            memory.last_escalated = target
            return ESCALATE, target
        target = self.oracle.target(sorted(self.known_addresses - memory.exploited))
        memory.exploited.add(target)
        memory.last_exploited = target
        return EXPLOIT, target

    def _meander_looks_back(self) -> None:
        """A failed exploit makes it give up all operational hosts, or, if it held none, all enterprise hosts."""
        memory = self.meander
        if (exploited := memory.last_exploited) is not None:
            memory.last_exploited = None
            if self.red_success == TRUE:
                memory.mapped.add(exploited)
            else:
                memory.exploited.discard(exploited)
                given_up = memory.escalated & set(_OPERATIONAL_HOSTS) or memory.escalated & set(_ENTERPRISE_GATES)
                memory.escalated -= given_up
                memory.exploited -= given_up
        if (escalated := memory.last_escalated) is not None:
            memory.last_escalated = None
            if self.red_success == FALSE:
                memory.escalated.discard(escalated)
                if escalated in memory.mapped:
                    memory.exploited.discard(escalated)

    # --- what Blue sees -----------------------------------------------------------------------------------------------

    def _show(
        self, action: int, decoy_host: int | None, malware_host: int | None, events: Events | None
    ) -> tuple[list[int], list[int]]:
        block, host = divmod(action - FIRST_HOST_ACTION, N_HOSTS)
        if block == RESTORE_BLOCK:
            self.compromised[host] = COMPROMISED_NO
        elif block == REMOVE_BLOCK and self.compromised[host] != COMPROMISED_NO:
            self.compromised[host] = COMPROMISED_UNKNOWN
        stock, corrected = [ACTIVITY_NONE] * N_HOSTS, [ACTIVITY_NONE] * N_HOSTS
        if events is not None:
            new_decoy = events.host == decoy_host
            stock[events.host] = _read(events, new_decoy, hides_scans=new_decoy)
            corrected[events.host] = _read(events, new_decoy, hides_scans=False)
            if stock[events.host] == ACTIVITY_EXPLOIT:
                self.compromised[events.host] = COMPROMISED_USER
        if malware_host is not None:
            self.compromised[malware_host] = COMPROMISED_PRIVILEGED
        return stock, corrected


def _read(events: Events, new_decoy: bool, hides_scans: bool) -> int:
    """How the table reads a host's events.

    A decoy placed there in the same step counts as one more, and in the stock table, where it stands first in the
    list, it hides what would be a scan.
    """
    n_items = events.count + new_decoy
    if n_items >= 3 and events.n_ports >= 3:
        return ACTIVITY_SCAN
    if events.shell_reported or (n_items >= 3 and events.n_ports == 1):
        return ACTIVITY_EXPLOIT
    return ACTIVITY_NONE if hides_scans else ACTIVITY_SCAN
