"""A trained policy as a folder that the challenge's own scripts can play: numpy, and nothing of ray_rl."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ray_rl
from ray_rl.config import UserError
from ray_rl.envs.cage2 import constants as c
from ray_rl.envs.cage2.action_sets import ACTION_SET_SIZES, ACTION_SETS, COMPACT_DECOYS, game_action
from ray_rl.envs.cage2.views import AGE_BOUNDS, CLOCK_BOUNDS, SEEN_HOSTS, VIEW_SIZES, VIEWS
from ray_rl.evaluate import cage2_agent, cage2_wrapper
from ray_rl.evaluate.policies import TrainedPolicy
from ray_rl.policy.inference import PolicyWeights

AGENT_FILE = "agent.py"
WRAPPER_FILE = "wrapper.py"
WEIGHTS_FILE = "policy.npz"
README_FILE = "README.md"


def check_exportable(policy: TrainedPolicy) -> None:
    """Refuse a policy that the challenge's wrapper cannot feed.

    Raises:
        UserError: Names what the format cannot hold.
    """
    env = policy.env
    if env.env not in ("cage2", "cyborg"):
        raise UserError(f"{policy.source} was trained on {env.env}: --format cage2 holds defenders of CAGE-2 only")
    if env.table != "stock":
        raise UserError(
            f"{policy.source} was trained with --table {env.table}: the organisers' wrapper shows the stock table"
        )
    if policy.weights.kind != "mlp":
        raise UserError(
            f"{policy.source} remembers in a GRU: --format cage2 holds MLPs only; --format onnx and policy hold both"
        )
    sizes = (VIEW_SIZES[VIEWS.index(env.view)], ACTION_SET_SIZES[ACTION_SETS.index(env.actions)])
    if sizes != (policy.weights.sizes[0], policy.weights.sizes[-1]):
        raise UserError(
            f"{policy.source} has {policy.weights.sizes[0]} inputs and {policy.weights.sizes[-1]} actions, view "
            f"{env.view} with actions {env.actions} has {sizes[0]} and {sizes[1]}: --format cage2 cannot hold what it "
            "sees besides, such as an order of repair"
        )


def export_agent(policy: TrainedPolicy, folder: Path, score: str) -> None:
    """Write agent, weights and a README.

    Args:
        policy: What to export.
        folder: New or empty folder.
        score: What the policy scored, with rule set, episodes, seed and interval; for the README.

    Raises:
        UserError: When the format cannot hold the policy.
    """
    check_exportable(policy)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(cage2_agent.__file__, folder / AGENT_FILE)
    np.savez_compressed(folder / WEIGHTS_FILE, **_contents(policy))  # type: ignore[arg-type]
    raw = policy.env.view == "raw"
    if raw:
        shutil.copyfile(cage2_wrapper.__file__, folder / WRAPPER_FILE)
    made_by = f" {policy.made_by}" if policy.made_by else ""
    text = _README.format(
        env=policy.spec.name,
        update=policy.update,
        made_by=made_by,
        score=score,
        v=ray_rl.__version__,
        wrap=_RAW_WRAP if raw else _WRAP,
        sees=_RAW_SEES if raw else _SEES,
    )
    (folder / README_FILE).write_text(text, encoding="utf-8")


def _contents(policy: TrainedPolicy) -> dict[str, NDArray[np.generic]]:
    action_set = ACTION_SETS.index(policy.env.actions)
    held: dict[str, NDArray[np.generic]] = {
        "view": np.array(policy.env.view),
        "actions": np.array([game_action(action_set, a) for a in range(ACTION_SET_SIZES[action_set])]),
        "seen_hosts": SEEN_HOSTS,
        "view_decoys": COMPACT_DECOYS,
        "age_bounds": AGE_BOUNDS,
        "clock_bounds": CLOCK_BOUNDS,
        "base_ports": c.BASE_PORTS,
        "decoy_opens": c.DECOY_OPENS,
        "decoy_needs": c.DECOY_NEEDS,
        "decoy_hosts": c.DECOY_HOSTS,
    }
    for number, (matrix, bias) in enumerate(layers_of(policy.weights)):
        held |= {f"matrix_{number}": matrix, f"bias_{number}": bias}
    return held


def layers_of(weights: PolicyWeights) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The layers of a network as (matrix [in, out], bias [out])."""
    layers = []
    start = 0
    for n_in, n_out in zip(weights.sizes[:-1].tolist(), weights.sizes[1:].tolist(), strict=True):
        end = start + n_in * n_out
        layers.append((weights.values[start:end].reshape(n_in, n_out), weights.values[end : end + n_out]))
        start = end + n_out
    return layers


_README = """# A defender for CAGE Challenge 2

`agent.py` holds the class `Agent` with `get_action(observation, action_space)` and `end_episode()`, as the
organisers' evaluation expects them; `policy.npz` holds its weights. It needs numpy alone.

Trained on `{env}`, {update} updates, by ray_rl {v}.{made_by}

{score}

In the organisers' `evaluation.py`:

```python
from agent import Agent  # with this folder on the path

agent = Agent()
{wrap}
```

{sees} Say `agent.end_episode()` after each
episode: it remembers what it saw and did since.
"""

_WRAP = """

def wrap(env):
    return ChallengeWrapper(env=env, agent_name="Blue")"""

_SEES = "The agent takes the 52 bits of `ChallengeWrapper` and returns actions 0 to 144."

_RAW_WRAP = "from wrapper import wrap  # instead of the script's own"

_RAW_SEES = """\
**Raw events: not to be compared with agents of the table alone.** `wrapper.py` puts one number behind the 52 bits of
`ChallengeWrapper`: which exploit the events of the step show, from CybORG's own `get_observation("Blue")`. The agent
takes these 53 numbers and returns actions 0 to 144."""
