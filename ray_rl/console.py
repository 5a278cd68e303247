"""What a person sees of a training run: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from ray_rl.config import TrainConfig
from ray_rl.storage import Location

_PLAIN_EVERY_S = 5.0


class Progress:
    """Shows a run while it goes on.

    Args:
        config: The run.
        folder: Its folder.
        console: Where to show it; default: standard output.
    """

    def __init__(self, config: TrainConfig, folder: Location, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stdout, highlight=False)
        self._folder = folder
        self._n_updates = config.n_updates
        self._per_update = config.ppo.episodes_per_update
        self._title = f"{config.env.env} · {config.env.red_agent} · {config.collect.collector} · seed {config.run.seed}"
        self._latest: dict[str, float] = {}
        self._rate: float | None = None
        self._said_at = -_PLAIN_EVERY_S
        self._bar = RichProgress(
            BarColumn(bar_width=None), TaskProgressColumn(), TextColumn("{task.fields[left]}"), console=self._console
        )
        self._task = self._bar.add_task("", total=self._n_updates, left="starting")
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        """Start showing."""
        self._console.print(f"[bold]{self._title}[/]\nrun folder {self._folder}", soft_wrap=True)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        self._live.stop()

    def show(self, update: int, elapsed_s: float, metrics: Mapping[str, float]) -> None:
        """Take in the numbers of an update or of an evaluation.

        Args:
            update: Number of finished updates.
            elapsed_s: Seconds of training so far.
            metrics: By name.
        """
        self._latest.update(metrics)
        rate = metrics.get("time/episodes_per_s")
        if rate is not None:
            self._rate = rate if self._rate is None else 0.9 * self._rate + 0.1 * rate
        left = (self._n_updates - update) * self._per_update / self._rate if self._rate else None
        self._bar.update(self._task, completed=update, left=f"{_duration(left)} left" if left is not None else "")
        if not self._console.is_terminal and (time.monotonic() - self._said_at >= _PLAIN_EVERY_S):
            self._said_at = time.monotonic()
            self._console.print(self._plain(update, elapsed_s), soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a remark that stays: something went wrong, and what is done about it."""
        self._console.print(f"note: {text}", style="yellow", markup=False, soft_wrap=True)

    def finish(self, update: int, stopped: bool) -> None:
        """Say how the run ended, and how to go on.

        Args:
            update: Number of finished updates.
            stopped: Whether the user stopped it.
        """
        self._live.stop()
        score = self._latest.get("eval/return_mean")
        half_width = self._latest.get("eval/return_half_width", 0.0)
        if score is not None:
            self._console.print(f"last evaluation: {score:.1f} ± {half_width:.1f} (unseen seeds)")
        if stopped:
            self._console.print(f"stopped after update {update} of {self._n_updates}, saved; to go on:", soft_wrap=True)
            config = self._folder / "config.yaml"
            self._console.print(f"  ray-rl train --config {config} --run-dir {self._folder} --resume", soft_wrap=True)
        else:
            self._console.print(f"done: {update} updates, {update * self._per_update:,} episodes", soft_wrap=True)
            self._console.print(
                f"  ray-rl evaluate {self._folder}\n  tensorboard --logdir {self._folder}", soft_wrap=True
            )

    def _plain(self, update: int, elapsed_s: float) -> str:
        m = self._latest
        parts = [
            f"update {update}/{self._n_updates}",
            f"{_duration(elapsed_s)}",
            f"{self._rate or 0:.0f} episodes/s",
            f"return {m.get('rollout/return_mean', float('nan')):.1f}",
        ]
        if "eval/return_mean" in m:
            parts.append(f"eval {m['eval/return_mean']:.1f} ± {m['eval/return_half_width']:.1f}")
        if "rollout/compliance" in m:
            parts.append(f"compliance {m['rollout/compliance']:.2f}")
        parts.append(f"lag {m.get('staleness/mean', 0):.1f}")
        return "  ".join(parts)

    def _render(self) -> Group:
        m = self._latest
        table = Table.grid(padding=(0, 3))
        for _ in range(4):
            table.add_column(justify="left", no_wrap=True)
        evaluation = (
            f"{m['eval/return_mean']:.1f} ± {m['eval/return_half_width']:.1f}" if "eval/return_mean" in m else "–"
        )
        table.add_row(
            _cell("return", m.get("rollout/return_mean"), "{:.1f}"),
            Text.assemble(("eval  ", "dim"), evaluation),
            _cell("episodes/s", self._rate, "{:.0f}"),
            _cell("lag", m.get("staleness/mean"), "{:.1f}"),
        )
        table.add_row(
            _cell("entropy", m.get("train/entropy"), "{:.2f}"),
            _cell("kl", m.get("train/approx_kl"), "{:.4f}"),
            _cell("collecting", m.get("time/share_collecting"), "{:.0%}"),
            _cell("learning", m.get("time/share_learning"), "{:.0%}"),
        )
        return Group(self._bar, table)


def _cell(name: str, value: float | None, form: str) -> Text:
    return Text.assemble((f"{name}  ", "dim"), "–" if value is None else form.format(value))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
