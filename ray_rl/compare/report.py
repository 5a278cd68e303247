"""A comparison as tables: on the console, and as Markdown. Every sentence of advice comes from a measured figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from rich.table import Table

from ray_rl.bench.rounds import Spread
from ray_rl.compare.published import N_WORKERS, PUBLISHED, TABLE_EPISODES
from ray_rl.compare.study import DEPENDENCIES, Comparison, MethodResult, Study, recommended_workers, workers_text

_NOTHING = "–"


def tables(comparison: Comparison) -> list[Table]:
    """All tables of a comparison: the figures, where the time went, what to use."""
    parts = [
        _as_table("Episodes per second", figures(comparison)),
        _as_table("Where the time went", shares(comparison)),
    ]
    if len(comparison.study.n_workers) > 1:
        parts.append(_as_table("Scaling", scaling(comparison)))
    parts.append(_as_table("What to use here", advice(comparison)))
    return parts


def to_markdown(comparison: Comparison) -> str:
    """The same tables in Markdown, with the machine and the command below."""
    parts = [f"# {comparison.environment}", _as_markdown(figures(comparison))]
    parts += failures(comparison)
    parts += ["Where the time went", _as_markdown(shares(comparison))]
    if len(comparison.study.n_workers) > 1:
        parts += ["Scaling", _as_markdown(scaling(comparison))]
    parts += ["What to use here", _as_markdown(advice(comparison))]
    parts += ["```", comparison.machine.describe(), "```"]
    return "\n\n".join(parts) + "\n"


Rows = list[list[str]]
"""The first row is the heading."""


def figures(comparison: Comparison) -> Rows:
    """Throughput, time for 100,000 episodes, speed-up, efficiency, memory, start-up, dependencies, as published."""
    compared_with_published = is_published_setting(comparison.study)
    heading = ["method", "workers", "episodes/s", f"{TABLE_EPISODES:,} episodes", "speed-up", "efficiency", "memory"]
    heading += ["start-up", "weights/update", "needs"] + (["published"] if compared_with_published else [])
    sequential = next((r for r in comparison.results if r.method == "sequential" and r.runs), None)
    rows = [heading]
    for result in comparison.results:
        published = [_published(result.method)] if compared_with_published else []
        name = [result.method, str(result.n_workers)]
        if not result.runs:
            rows.append([*name, "not run", *[_NOTHING] * 7, *published])
            continue
        speed = result.episodes_per_s
        speed_up = f"{speed.median / sequential.episodes_per_s.median:.2f}×" if sequential else _NOTHING
        rows.append(
            [
                *name,
                _spread(speed) + (", then failed" if result.failure else ""),
                _duration(TABLE_EPISODES / speed.median),
                speed_up,
                _share(comparison.efficiency(result)),
                f"{result.median(lambda run: run.pss_bytes) / 2**30:.2f} GiB",
                f"{result.median(lambda run: run.startup_s):.1f} s",
                f"{result.median(lambda run: run.weights_bytes_per_update) / 1000:,.0f} kB",
                DEPENDENCIES[result.method],
                *published,
            ]
        )
    return rows


def is_published_setting(study: Study) -> bool:
    """Whether this is the setting of the published figures: 100 workers whose steps wait."""
    return study.env.env == "latency" and N_WORKERS in study.n_workers


def failures(comparison: Comparison) -> list[str]:
    """One line for each method that could not be run, or stopped: why."""
    return [f"{_name(r)}: {r.failure}" for r in comparison.results if r.failure]


def shares(comparison: Comparison) -> Rows:
    """How the workers' time divides, and what a barrier costs."""
    rows = [["method", "workers", "stepping", "inference", "barriers", "weights", "rest", "mean step", "slowest step"]]
    for result in comparison.results:
        if result.runs:
            s = result.shares
            parts = (s.stepping, s.inference, s.barriers, s.weights, s.rest)
            step = [result.median(lambda run: run.mean_step_s), result.median(lambda run: run.slowest_step_s)]
            said = [f"{step_s * 1000:.1f} ms" if s.barriers else _NOTHING for step_s in step]
            rows.append([result.method, str(result.n_workers), *(f"{part:.1%}" for part in parts), *said])
    return rows


def scaling(comparison: Comparison) -> Rows:
    """Throughput and efficiency of each method over the number of workers, and how many to use."""
    counts = comparison.study.n_workers
    rows = [["method", *(f"{n} workers" for n in counts), "recommended"]]
    for method, results in _by_method(comparison).items():
        by_count = {r.n_workers: r for r in results if r.runs}
        if method == "sequential" or not by_count:
            continue
        cells = [
            f"{by_count[n].episodes_per_s.median:.1f} ({_share(comparison.efficiency(by_count[n]))})"
            if n in by_count
            else _NOTHING
            for n in counts
        ]
        rows.append([method, *cells, str(recommended_workers(list(by_count.values())))])
    return rows


def advice(comparison: Comparison) -> Rows:
    """By use case, the method that the figures name, and the figure that decided."""
    runs = [r for r in comparison.results if r.runs]
    rows = [["if you want", "use", "because here"]]

    def best(what: str, candidates: Sequence[MethodResult], key: Callable[[MethodResult], float], say: str) -> None:
        if candidates:
            chosen = max(candidates, key=key)
            rows.append([what, _name(chosen), say.format(r=chosen, v=abs(key(chosen)))])

    def speed(result: MethodResult) -> float:
        return result.episodes_per_s.median

    best("the most episodes on one machine", runs, speed, "{v:.1f} episodes/s, the most of all")
    best(
        "to add machines later",
        [r for r in runs if DEPENDENCIES[r.method] == "ray"],
        speed,
        "{v:.1f} episodes/s; the same command joins a cluster with --address",
    )
    best(
        "no Ray",
        [r for r in runs if DEPENDENCIES[r.method] != "ray"],
        speed,
        "{v:.1f} episodes/s, the most without it",
    )
    best("to begin at once", runs, lambda r: -r.median(lambda run: run.startup_s), "ready after {v:.1f} s")
    best("the least memory", runs, lambda r: -float(r.median(lambda run: run.pss_bytes)) / 2**30, "{v:.2f} GiB in all")
    return rows


def _name(result: MethodResult) -> str:
    return f"{result.method}, {workers_text(result.n_workers)}"


def _by_method(comparison: Comparison) -> dict[str, list[MethodResult]]:
    grouped: dict[str, list[MethodResult]] = defaultdict(list)
    for result in comparison.results:
        grouped[result.method].append(result)
    return grouped


def _published(method: str) -> str:
    if method not in PUBLISHED:
        return _NOTHING
    row = PUBLISHED[method]
    low, high = row.episodes_per_s
    return (f"{low:g}" if low == high else f"{low:g}-{high:g}") + f" ({row.remark})"


def _spread(figure: Spread) -> str:
    if len(figure.values) == 1:
        return f"{figure.median:.1f}"
    return f"{figure.median:.1f} ({figure.low:.1f}-{figure.high:.1f})"


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.1%}"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _as_table(title: str, rows: Rows) -> Table:
    table = Table(title=title, title_justify="left")
    for position, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if position == 0 or len(rows[0]) == 3 else "right")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _as_markdown(rows: Rows) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)
