"""Left to its own draws, the simulator has CybORG's law: means of returns against those recorded from CybORG.

16 comparisons of independent means, each refused beyond 4 standard errors: seeds are fixed, and a correct simulator
would have failed with a chance of about 0.001.
"""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from ray_rl.envs.cage2 import simulator as s
from ray_rl.envs.cage2.constants import N_HOSTS, REMOVE_BLOCK, RESTORE_BLOCK, action_index
from ray_rl.envs.cage2.random_play import random_play
from ray_rl.seeding import Purpose, episode_seeds

N = 4000

# Red agent, Blue: mean and standard error of the return over 30, 50 and 100 steps in CybORG 2.1 at commit 26ce1c1.
RECORDED = {
    ("bline", "sleep"): ((-217.34, 0.63), (-479.29, 0.64), (-1134.29, 0.64)),
    ("bline", "random"): ((-157.55, 2.00), (-342.97, 4.05), (-744.53, 9.10)),
    ("bline", "react_remove"): ((-92.35, 2.23), (-296.54, 4.34), (-931.02, 5.78)),
    ("bline", "react_restore"): ((-31.66, 1.11), (-117.16, 3.68), (-536.62, 10.17)),
    ("meander", "sleep"): ((-39.89, 0.66), (-267.80, 2.25), (-970.00, 2.30)),
    ("meander", "random"): ((-34.06, 0.46), (-170.37, 2.71), (-586.68, 8.35)),
    ("meander", "react_remove"): ((-20.76, 0.40), (-112.35, 3.43), (-635.71, 10.98)),
    ("meander", "react_restore"): ((-13.14, 0.11), (-39.41, 0.74), (-216.07, 4.51)),
}
RED = {"bline": 0, "meander": 1}


@pytest.mark.parametrize(("red", "blue"), RECORDED, ids="-".join)
def test_mean_returns_are_those_of_cyborg(red: str, blue: str) -> None:
    seeds = episode_seeds(11, Purpose.VERIFY, 0, N)
    for steps, (mean, error) in zip((30, 50, 100), RECORDED[red, blue], strict=True):
        returns = play(seeds, RED[red], blue, steps)
        z = (returns.mean() - mean) / np.hypot(error, returns.std() / np.sqrt(N))
        assert abs(z) < 4, f"{steps} steps: {returns.mean():.2f}, recorded {mean:.2f}: {z:.1f} standard errors"


def test_a_sleeping_red_agent_costs_nothing_but_restores() -> None:
    """Uniform actions: 13 of 145 are Restores; the mean of 100 steps is -100 · 13 / 145 = -8.97."""
    returns = random_play(episode_seeds(12, Purpose.VERIFY, 0, N), 2, 0, 100)
    assert abs(returns.mean() + 100 * 13 / 145) < 4 * returns.std() / np.sqrt(N)


def play(seeds: np.ndarray, red: int, blue: str, steps: int) -> np.ndarray:
    if blue == "random":
        return random_play(seeds, red, 0, steps)
    block = {"sleep": -1, "react_remove": REMOVE_BLOCK, "react_restore": RESTORE_BLOCK}[blue]
    return react_play(seeds, red, block, steps)


@njit
def react_play(seeds: np.ndarray, red: int, block: int, steps: int) -> np.ndarray:
    """CybORG's own agents: a queue of hosts on which a reverse shell was reported while Blue was watching, each of them
    removed or restored in turn; User0 and what is reported during a repair are ignored. Block -1 sleeps."""
    returns = np.zeros(len(seeds))
    state = np.empty(s.STATE_SIZE, np.int64)
    queue = np.empty(N_HOSTS, np.int64)
    for episode in range(len(seeds)):
        s.reset_state(state, seeds[episode], red, 0)
        length, watched = 0, False
        for _ in range(steps):
            host = state[s.EVENT_HOST]
            if watched and host >= 0 and state[s.RED_DETECTED] and host != 8:
                known = False
                for k in range(length):
                    known |= queue[k] == host
                if not known:
                    queue[length] = host
                    length += 1
            watched = length == 0 or block < 0
            action = 1
            if not watched:
                action = 2 + N_HOSTS * block + queue[0]
                for k in range(length - 1):
                    queue[k] = queue[k + 1]
                length -= 1
            returns[episode] += s.step_state(state, action, s.NOTHING_FORCED)
    return returns


def test_action_index_is_the_layout_used_above() -> None:
    assert action_index(RESTORE_BLOCK, 3) == 2 + N_HOSTS * RESTORE_BLOCK + 3


def test_draws_have_the_frequencies_of_the_rules() -> None:
    """B_line's first user host is uniform over four; 4000 draws, five standard errors are 0.034."""
    state = np.empty(s.STATE_SIZE, np.int64)
    counts = np.zeros(N_HOSTS)
    for seed in episode_seeds(13, Purpose.VERIFY, 0, N):
        s.reset_state(state, seed, 0, 0)
        s.step_state(state, 0, s.NOTHING_FORCED)
        s.step_state(state, 0, s.NOTHING_FORCED)
        counts[state[s.RED_TARGET]] += 1
    assert np.abs(counts[9:13] / N - 0.25).max() < 0.034
    assert counts[:9].sum() == 0
