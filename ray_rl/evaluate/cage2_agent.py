"""A trained defender for the scripts of CAGE Challenge 2. Needs numpy, and ``policy.npz`` in this file's folder.

The organisers' evaluation asks an agent for `get_action` with what their ChallengeWrapper shows, 52 bits, and tells it
by `end_episode` that an episode is over. Everything else the agent keeps itself, from those bits and its own actions.
An agent of the view ``raw`` wants one number more after them, which ``wrapper.py`` gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

N_HOSTS = 13
TABLE_BITS = 52
FIRST_HOST_ACTION = 2
REMOVE_BLOCK, FIRST_DECOY_BLOCK, RESTORE_BLOCK = 1, 2, 10
N_DECOYS = 8
N_EVENTS, N_OWN_ACTIONS, N_FIRST_SCANS, N_COUNTS = 6, 4, 2, 3
KINDS = 5
"""Kinds of own actions: waiting, Analyse, Remove, decoys, Restore."""
SCAN = 1
N_EXPLOITS, N_OUTCOMES = 8, 3
FAILED, UNREPORTED = 0, 1
"""How a sighted exploit ended; 2: a session was reported."""
NO_SIGHTING = -1


class Agent:
    """Plays one episode after another.

    Args:
        folder: Where ``policy.npz`` lies; default: beside this file.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        with np.load(Path(folder or Path(__file__).parent) / "policy.npz") as file:
            held: dict[str, Any] = {name: file[name] for name in file.files}
        self._view = str(held["view"])
        self._takes_sightings = self._view == "raw"
        self._actions = [int(a) for a in held["actions"]]
        self._compact = len(self._actions) < FIRST_HOST_ACTION + 11 * N_HOSTS
        self._seen_hosts = [int(h) for h in held["seen_hosts"]]
        self._place = {host: place for place, host in enumerate(self._seen_hosts)}
        self._view_decoys = [(int(host), int(kind)) for host, kind in held["view_decoys"]]
        self._age_bounds = held["age_bounds"].tolist()
        self._clock_bounds = held["clock_bounds"].tolist()
        self._base_ports = held["base_ports"].tolist()
        self._decoy_opens = held["decoy_opens"].tolist()
        self._decoy_needs = held["decoy_needs"].tolist()
        self._decoy_hosts = held["decoy_hosts"].tolist()
        n_layers = sum(name.startswith("matrix_") for name in held)
        self._layers = [
            (held[f"matrix_{n}"].astype(np.float32), held[f"bias_{n}"].astype(np.float32)) for n in range(n_layers)
        ]
        self._last_action = -1
        self.end_episode()

    def get_action(self, observation: Any, action_space: Any = None) -> int:
        """Choose an action.

        Args:
            observation: 52 bits of Blue's table; for the view ``raw`` the sighting after them.
            action_space: Ignored: the wrapper numbers the actions 0 to 144 alike in every episode.
        """
        bits = [int(bit) for bit in np.asarray(observation).ravel()]
        if len(bits) != TABLE_BITS + self._takes_sightings:
            wanted = "numbers of wrapper.py" if self._takes_sightings else "bits of ChallengeWrapper"
            raise ValueError(f"expected the {TABLE_BITS + self._takes_sightings} {wanted}, got {len(bits)} numbers")
        sighting = bits.pop() if self._takes_sightings else NO_SIGHTING
        if self._last_action >= 0:
            self._write_down(bits, self._last_action, sighting)
        logits = self._logits(self._active())
        allowed = [self._may_help(action) for action in self._actions]
        best = max((k for k in range(len(logits)) if allowed[k]), key=lambda k: float(logits[k]))
        self._last_action = self._actions[best]
        return self._last_action

    def end_episode(self) -> None:
        """Forget the episode."""
        self._last_action = -1
        self._step = 0
        self._bits = [0] * TABLE_BITS
        self._scanned: set[int] = set()
        self._last_scanned = -1
        self._decoys = [0] * N_HOSTS
        self._decoys_at_first_scan = [0] * N_HOSTS
        self._decoys_at_last_scan = [0] * N_HOSTS
        self._last_exploit = [-1] * N_HOSTS
        self._last_scan = [-1] * N_HOSTS
        self._last_restore = [-1] * N_HOSTS
        self._last_remove = [-1] * N_HOSTS
        self._exploits_since_restore = [0] * N_HOSTS
        self._events: list[tuple[int, bool]] = []
        self._own_actions: list[int] = []
        self._first_scans: list[int] = []
        self._sighting = NO_SIGHTING
        self._last_gain = [-1] * N_HOSTS
        self._gains: list[set[int]] = [set() for _ in range(N_HOSTS)]

    def set_initial_values(self, action_space: Any, observation: Any) -> None:
        """Nothing to set; CybORG's own agents have this."""

    def train(self, results: Any) -> None:
        """Nothing to learn; CybORG's own agents have this."""

    # --- memory -------------------------------------------------------------------------------------------------------

    def _write_down(self, bits: list[int], action: int, sighting: int) -> None:
        """One step: what Blue did, then what the table and the events show after it."""
        step, self._step = self._step, self._step + 1
        self._bits = bits
        self._own_actions = [action, *self._own_actions][:N_OWN_ACTIONS]
        if action >= FIRST_HOST_ACTION:
            block, host = divmod(action - FIRST_HOST_ACTION, N_HOSTS)
            if block == RESTORE_BLOCK:
                self._decoys[host] = 0
                self._last_restore[host] = step
                self._exploits_since_restore[host] = 0
                self._last_gain[host] = -1
                self._gains[host] = set()
            elif block == REMOVE_BLOCK:
                self._last_remove[host] = step
            elif block >= FIRST_DECOY_BLOCK and self._fits(block - FIRST_DECOY_BLOCK, host):
                self._decoys[host] |= 1 << (block - FIRST_DECOY_BLOCK)
        for host in range(N_HOSTS):
            activity = bits[4 * host] + 2 * bits[4 * host + 1]
            if activity:
                self._note_activity(host, activity == SCAN, step)
        self._sighting = sighting
        if sighting != NO_SIGHTING:
            self._note_sighting(sighting)

    def _note_sighting(self, sighting: int) -> None:
        place, outcome = divmod(sighting, N_OUTCOMES)
        host, exploit = divmod(place, N_EXPLOITS)
        if outcome != FAILED:
            self._last_gain[host] = exploit
            self._gains[host] |= {exploit, N_EXPLOITS} if outcome == UNREPORTED else {exploit}

    def _note_activity(self, host: int, scan: bool, step: int) -> None:
        self._events = [(host, not scan), *self._events][:N_EVENTS]
        if not scan:
            self._last_exploit[host] = step
            self._exploits_since_restore[host] += 1
            return
        self._last_scan[host] = step
        self._last_scanned = host
        self._decoys_at_last_scan[host] = self._decoys[host]
        if host not in self._scanned:
            self._scanned.add(host)
            self._decoys_at_first_scan[host] = self._decoys[host]
            self._first_scans = [*self._first_scans, host][:N_FIRST_SCANS]

    def _fits(self, kind: int, host: int) -> bool:
        """Whether a decoy can be placed: the system fits and the port is free."""
        ports = self._base_ports[host]
        for other in range(N_DECOYS):
            if self._decoys[host] >> other & 1:
                ports |= self._decoy_opens[other]
        return bool(self._decoy_hosts[kind] >> host & 1) and not ports & self._decoy_needs[kind]

    def _may_help(self, action: int) -> bool:
        """Whether an action may help now; the policy was trained with the others left out."""
        if action < FIRST_HOST_ACTION:
            return True
        block, host = divmod(action - FIRST_HOST_ACTION, N_HOSTS)
        if block == REMOVE_BLOCK:
            return not self._compact or bool(self._bits[4 * host + 2] or self._bits[4 * host + 3])
        if FIRST_DECOY_BLOCK <= block < RESTORE_BLOCK:
            kind = block - FIRST_DECOY_BLOCK
            return not self._decoys[host] >> kind & 1 and self._fits(kind, host)
        return True

    # --- what the network sees ----------------------------------------------------------------------------------------

    def _active(self) -> list[int]:
        """Indices of the inputs that are 1, ascending."""
        flags: list[bool] = [bool(bit) for bit in self._bits]
        if self._view != "table":
            for host in self._seen_hosts:
                latest = self._last_scanned == host
                flags += [host in self._scanned and not latest, host in self._scanned and latest]
            flags += self._decoy_flags(self._decoys)
        if self._view in ("memory", "raw"):
            flags += self._memory_flags()
        if self._view == "raw":
            flags += self._raw_flags()
        return [number for number, flag in enumerate(flags) if flag]

    def _decoy_flags(self, decoys: list[int]) -> list[bool]:
        return [bool(decoys[host] >> kind & 1) for host, kind in self._view_decoys]

    def _memory_flags(self) -> list[bool]:
        flags = self._decoy_flags(self._decoys_at_first_scan) + self._decoy_flags(self._decoys_at_last_scan)
        for times in (self._last_exploit, self._last_scan, self._last_restore, self._last_remove):
            for host in self._seen_hosts:
                age = self._step - 1 - times[host]
                flags += one_of(len(self._age_bounds) + 1, bucket(age, self._age_bounds) if times[host] >= 0 else -1)
        for host in self._seen_hosts:
            flags += one_of(N_COUNTS, min(self._exploits_since_restore[host], N_COUNTS) - 1)
        n_seen = len(self._seen_hosts)
        for k in range(N_EVENTS):
            host, exploit = self._events[k] if k < len(self._events) else (-1, False)
            place = self._place.get(host, -1)
            flags += one_of(2 * n_seen, 2 * place + exploit if place >= 0 else -1)
        for k in range(N_OWN_ACTIONS):
            kind, place = self._kind_and_place(self._own_actions[k]) if k < len(self._own_actions) else (-1, -1)
            flags += one_of(KINDS, kind) + one_of(n_seen, place)
        flags += one_of(len(self._clock_bounds) + 1, bucket(self._step, self._clock_bounds))
        for k in range(N_FIRST_SCANS):
            host = self._first_scans[k] if k < len(self._first_scans) else -1
            flags += one_of(n_seen, self._place.get(host, -1))
        return flags

    def _raw_flags(self) -> list[bool]:
        n_sights = N_EXPLOITS * N_OUTCOMES
        flags = one_of(n_sights, self._sighting % n_sights if self._sighting != NO_SIGHTING else -1)
        for host in self._seen_hosts:
            flags += one_of(N_EXPLOITS, self._last_gain[host])
        for host in self._seen_hosts:
            flags += [gain in self._gains[host] for gain in range(N_EXPLOITS + 1)]
        return flags

    def _kind_and_place(self, action: int) -> tuple[int, int]:
        if action < FIRST_HOST_ACTION:
            return 0, -1
        block, host = divmod(action - FIRST_HOST_ACTION, N_HOSTS)
        kind = block + 1 if block < FIRST_DECOY_BLOCK else 4 if block == RESTORE_BLOCK else 3
        return kind, self._place.get(host, -1)

    def _logits(self, active: list[int]) -> Any:
        """The network; sums run in a fixed order, so that they round as where the policy was trained."""
        matrix, bias = self._layers[0]
        out = bias.copy()
        for number in active:
            out += matrix[number]
        for matrix, bias in self._layers[1:]:
            hidden, out = out, bias.copy()
            for number in np.flatnonzero(hidden > 0).tolist():
                out += hidden[number] * matrix[number]
        return out


def one_of(length: int, position: int) -> list[bool]:
    """Flags of which the one at a position is set; none for -1."""
    return [k == position for k in range(length)]


def bucket(value: int, bounds: list[int]) -> int:
    """Number of bounds that a value has reached."""
    return sum(value >= bound for bound in bounds)
