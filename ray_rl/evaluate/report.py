"""What a defender learned, as one HTML page: scores, rewards, hosts, actions, and three episodes step by step."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ray_rl.envs.cage2.constants import (
    ACTION_NAMES,
    FIRST_DECOY_BLOCK,
    FIRST_HOST_ACTION,
    HOSTS,
    N_HOSTS,
    REMOVE_BLOCK,
    RESTORE_BLOCK,
    USER0,
)
from ray_rl.episodes import RED_AGENTS, episode_requests
from ray_rl.evaluate.leaderboard import PUBLISHED, TABLE_RULES, WINNER_AGAIN, is_complete, standing
from ray_rl.evaluate.policies import load_policy
from ray_rl.evaluate.protocol import Scores, evaluation_env
from ray_rl.evaluate.replay import PRIVILEGED_HELD, USER_HELD, Replays, replay
from ray_rl.policy.acting import acting_policy
from ray_rl.seeding import Purpose
from ray_rl.storage import Location

REPORT_STEPS = 100
_COLOURS = dict(zip(RED_AGENTS, ("#c0392b", "#2471a3", "#7d8b8c"), strict=True))
_KINDS = ("wait", "Analyse", "Remove", "decoy", "Restore")
_KIND_COLOURS = dict(zip(_KINDS, ("#bbbbbb", "#8e6bbf", "#2e86c1", "#d39b1e", "#1e8449"), strict=True))
_CELL = 7
"""Pixels of one step in the pictures of hosts."""
_ROW = 13
_LEFT = 86


def write_report(
    scores: Scores, path: Path, policy_path: Location, n_episodes: int, cyborg_path: str | None = None
) -> None:
    """Replay episodes of an evaluation and write the page.

    Args:
        scores: The evaluation's scores.
        path: The HTML file.
        policy_path: As given to `load_policy`.
        n_episodes: Episodes to replay against each red agent.
        cyborg_path: Where CybORG is, when the scores are CybORG's.
    """
    policy = load_policy(policy_path)
    config = evaluation_env(policy, scores.rules, scores.environment.startswith("cyborg "), cyborg_path)
    acting = acting_policy(policy.weights)
    played = {}
    for number, agent in enumerate(dict.fromkeys(cell.red_agent for cell in scores.cells)):
        requests = episode_requests(
            scores.seed,
            number * n_episodes,
            n_episodes,
            red_agent=agent,
            max_steps=REPORT_STEPS,
            purpose=Purpose[scores.purpose.upper()],
            greedy=scores.greedy,
        )
        played[agent] = replay(config, acting, requests)
    path.write_text(page(scores, played), encoding="utf-8")


def page(scores: Scores, played: dict[str, Replays]) -> str:
    """The page.

    Args:
        scores: Of the evaluation.
        played: Replayed episodes by red agent, all of the same length.
    """
    n = len(next(iter(played.values())).requests)
    sections = [
        ("Scores", _scores(scores)),
        ("Reward by step", _rewards(played) + f"<p class=note>Mean over {n} episodes against each red agent.</p>"),
        ("What was attacked, lost and repaired, and when", "".join(_host_maps(a, r) for a, r in played.items())),
        ("Use of actions", "".join(_actions(a, r) for a, r in played.items())),
        ("Three episodes", _three_episodes(played)),
    ]
    how = "greedy" if scores.greedy else "sampled"
    facts = (
        f"rules {scores.rules} · {scores.environment} · {scores.cells[0].n_episodes} episodes per cell · {how} · "
        f"{scores.purpose} seed {scores.seed}"
    )
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections)
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{scores.total:.2f} ± {scores.total_half_width:.2f}, rules {scores.rules}</title>"
        f"<style>{_STYLE}</style>"
        f"<h1>What the defender learned</h1><p>{html.escape(facts)}<br>{html.escape(scores.checkpoint)}, trained on "
        f"{html.escape(scores.trained_on)}</p>{body}</html>\n"
    )


def _scores(scores: Scores) -> str:
    """Each cell beside the best published entries, or beside the winner as measured anew under these rules."""
    names = [(cell.red_agent, cell.steps) for cell in scores.cells]
    again = WINNER_AGAIN[scores.rules]
    others = [(f"winner's weights, measured anew, rules {scores.rules}", again.cells, f"{again.total:.2f}")]
    if scores.rules == TABLE_RULES:
        others += [(f"{e.rank}. {e.team}", e.cells, f"{e.total:.2f}<br>± {e.half_width:.2f}") for e in PUBLISHED[:5]]
    head = "".join(f"<th>{html.escape(name)}" for name, _, _ in others)
    rows = ""
    for cell in scores.cells:
        key = (cell.red_agent, cell.steps)
        means = "".join(f"<td>{cells[key]:.2f}" if key in cells else "<td>–" for _, cells, _ in others)
        rows += (
            f"<tr><th>{cell.red_agent}, {cell.steps} steps<td class=own>{cell.mean:.2f} ± {cell.half_width:.2f}{means}"
        )
    if is_complete(names):
        totals = "".join(f"<td>{total}" for _, _, total in others)
        rows += f"<tr><th>total<td class=own>{scores.total:.2f} ± {scores.total_half_width:.2f}{totals}"
    total = (scores.total, scores.total_half_width, scores.rules, scores.sees_raw_events)
    where = standing(*total) if is_complete(names) else []
    lines = "".join(f"<li>{html.escape(line)}" for line in where)
    return f"<div class=wide><table><tr><th>mean return<th>this policy{head}{rows}</table></div><ul>{lines}</ul>"


def _rewards(played: dict[str, Replays]) -> str:
    means = {agent: r.rewards.mean(axis=0) for agent, r in played.items()}
    low = min(-0.1, *(float(m.min()) for m in means.values()))
    width, height = _CELL * REPORT_STEPS, 200

    def y(value: float) -> float:
        return 10 + value / low * (height - 20)

    parts = []
    for tick in np.linspace(0, low, 5):
        parts.append(f"<line x1={_LEFT} x2={_LEFT + width} y1={y(tick):.1f} y2={y(tick):.1f} class=grid />")
        parts.append(f"<text x={_LEFT - 6} y={y(tick) + 4:.1f} text-anchor=end>{tick:.2f}</text>")
    for agent, values in means.items():
        points = " ".join(f"{_LEFT + _CELL * (k + 0.5):.1f},{y(float(v)):.1f}" for k, v in enumerate(values))
        parts.append(f'<polyline points="{points}" fill=none stroke="{_COLOURS[agent]}" stroke-width=1.5 />')
    keys = "".join(f'<span style="color:{_COLOURS[a]}">■</span> {a} ' for a in means)
    return _svg(_LEFT + width + 10, height + 18, "".join(parts) + _step_axis(height + 12)) + f"<p>{keys}</p>"


def _host_maps(agent: str, replays: Replays) -> str:
    """For each host and step the share of episodes with an attack, with Red in control, with a repair."""
    if not replays.attacked.any():
        return f"<h3>{agent}</h3><p>No exploit showed in any episode.</p>"
    repaired = np.zeros(replays.attacked.shape, dtype=np.bool_)
    kinds, hosts = _kind_numbers(replays.actions), _hosts(replays.actions)
    mends = np.isin(kinds, (_KINDS.index("Remove"), _KINDS.index("Restore")))
    episodes, steps = np.nonzero(mends)
    repaired[episodes, steps, hosts[episodes, steps]] = True
    lost = replays.held == PRIVILEGED_HELD
    lost[:, :, USER0] = False
    maps = (
        ("attacked: the table shows an exploit", replays.attacked, "#d35400"),
        ("lost: Red holds a privileged session (User0, its own from the start, left out)", lost, "#c0392b"),
        ("repaired: Remove or Restore", repaired, "#1e8449"),
    )
    return f"<h3>{agent}</h3>" + "".join(_host_map(title, flags.mean(axis=0), colour) for title, flags, colour in maps)


def _host_map(title: str, shares: NDArray[np.float64], colour: str) -> str:
    """A picture of shares [T, 13]: the darker, the more episodes."""
    parts = [_host_names(), f"<rect x={_LEFT} y=0 width={_CELL * len(shares)} height={_ROW * N_HOSTS} class=ground />"]
    for step, host in zip(*np.nonzero(shares > 0.004), strict=True):
        parts.append(
            f"<rect x={_LEFT + _CELL * step} y={_ROW * host} width={_CELL} height={_ROW - 1} fill={colour} "
            f"fill-opacity={shares[step, host] ** 0.5:.2f} />"
        )
    picture = _svg(
        _LEFT + _CELL * len(shares) + 10, _ROW * N_HOSTS + 18, "".join(parts) + _step_axis(_ROW * N_HOSTS + 12)
    )
    return (
        f"<figure><figcaption>{title}; most often {100 * shares.max():.0f} % of episodes</figcaption>{picture}</figure>"
    )


def _actions(agent: str, replays: Replays) -> str:
    """The actions taken most, with their share of all steps."""
    counts = np.bincount(replays.actions.ravel(), minlength=len(ACTION_NAMES))
    order = np.argsort(-counts, kind="stable")[:16]
    kinds = _kind_numbers(order)
    rows = ""
    for action, kind in zip(order.tolist(), kinds.tolist(), strict=True):
        share = counts[action] / counts.sum()
        if share > 0:
            bar = f'<span class=bar style="width:{300 * share:.0f}px;background:{_KIND_COLOURS[_KINDS[kind]]}"></span>'
            rows += f"<tr><th>{ACTION_NAMES[action]}<td>{100 * share:.1f} %<td class=left>{bar}"
    return f"<div class=column><h3>{agent}</h3><table>{rows}</table></div>"


def _three_episodes(played: dict[str, Replays]) -> str:
    """The median, the worst and the best of all episodes against agents that attack."""
    attackers = {agent: r for agent, r in played.items() if agent != "SleepAgent"} or played
    every = [(value, agent, k) for agent, r in attackers.items() for k, value in enumerate(r.returns().tolist())]
    every.sort()
    chosen = (("median", every[len(every) // 2]), ("worst", every[0]), ("best", every[-1]))
    keys = "".join(f'<span style="color:{_KIND_COLOURS[k]}">●</span> {k} ' for k in _KINDS[1:])
    parts = [
        f"<p>Blue's action: {keys}· Red holds: <span style='color:#f5b7b1'>■</span> a session "
        "<span style='color:#c0392b'>■</span> privileges · <b>×</b> an exploit shows</p>"
    ]
    for name, (value, agent, k) in chosen:
        replays = attackers[agent]
        parts.append(
            f"<figure><figcaption>{name}: {value:.1f} against {agent}, seed {replays.requests[k].seed}</figcaption>"
            f"{_timeline(replays, k)}</figure>"
        )
    return "".join(parts)


def _timeline(replays: Replays, k: int) -> str:
    held, attacked, actions = replays.held[k], replays.attacked[k], replays.actions[k]
    n_steps = len(actions)
    parts = [_host_names(), f"<rect x={_LEFT} y=0 width={_CELL * n_steps} height={_ROW * N_HOSTS} class=ground />"]
    for code, colour in ((USER_HELD, "#f5b7b1"), (PRIVILEGED_HELD, "#c0392b")):
        for step, host in zip(*np.nonzero(held == code), strict=True):
            parts.append(
                f"<rect x={_LEFT + _CELL * step} y={_ROW * host} width={_CELL} height={_ROW - 1} fill={colour} />"
            )
    for step, host in zip(*np.nonzero(attacked), strict=True):
        parts.append(f"<text x={_LEFT + _CELL * step} y={_ROW * host + 10} class=mark>×</text>")
    for step, (kind, host) in enumerate(zip(_kind_numbers(actions), _hosts(actions), strict=True)):
        if host >= 0:
            parts.append(
                f"<circle cx={_LEFT + _CELL * (step + 0.5)} cy={_ROW * host + 6} r=3 "
                f'fill="{_KIND_COLOURS[_KINDS[kind]]}"><title>step {step + 1}: {ACTION_NAMES[actions[step]]}, reward '
                f"{replays.rewards[k, step]:.1f}</title></circle>"
            )
    return _svg(_LEFT + _CELL * n_steps + 10, _ROW * N_HOSTS + 18, "".join(parts) + _step_axis(_ROW * N_HOSTS + 12))


def _kind_numbers(actions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position in `_KINDS` of each of the 145 actions."""
    block = (actions - FIRST_HOST_ACTION) // N_HOSTS
    kinds = np.select(
        [actions < FIRST_HOST_ACTION, block < REMOVE_BLOCK, block < FIRST_DECOY_BLOCK, block < RESTORE_BLOCK],
        [0, 1, 2, 3],
        4,
    )
    return kinds.astype(np.int64)


def _hosts(actions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Host of each action, -1 for those of no host."""
    return np.where(actions < FIRST_HOST_ACTION, -1, (actions - FIRST_HOST_ACTION) % N_HOSTS)


def _host_names() -> str:
    return "".join(
        f"<text x={_LEFT - 6} y={_ROW * row + 10} text-anchor=end>{name}</text>" for row, name in enumerate(HOSTS)
    )


def _step_axis(y: float) -> str:
    ticks: Sequence[int] = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    return "".join(f"<text x={_LEFT + _CELL * (t - 0.5)} y={y} text-anchor=middle>{t}</text>" for t in ticks)


def _svg(width: float, height: float, content: str) -> str:
    return f"<div class=wide><svg width={width:.0f} height={height:.0f} role=img>{content}</svg></div>"


_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:66rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.2rem;border-bottom:1px solid #ccc;margin-top:2.2rem}
h3{font-size:1rem;margin:.8rem 0 .3rem}
table{border-collapse:collapse;font-size:13px}td,th{padding:.25rem .5rem;text-align:right;font-weight:400}
th:first-child{text-align:left}td.own{font-weight:700}td,th:first-child{white-space:nowrap}th{max-width:9rem}
td.left{text-align:left}tr+tr{border-top:1px solid #eee}
.wide{overflow-x:auto}figure{margin:.4rem 0 1rem}figcaption{font-size:13px;margin-bottom:.2rem}.note{font-size:13px}
svg text{font:10px system-ui,sans-serif;fill:#444}svg .grid{stroke:#ddd}svg .ground{fill:#f4f4f4}svg .mark{fill:#000}
.bar{display:inline-block;height:.8rem}.column{display:inline-block;vertical-align:top;margin-right:2rem}
"""
