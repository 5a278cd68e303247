"""``ray-rl export``: a trained defender for others to play."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ray_rl.commands.flags import parse, place
from ray_rl.commands.screen import make_console
from ray_rl.config import CollectConfig, CollectorName, UserError
from ray_rl.evaluate.onnx_file import export_onnx, load_onnx
from ray_rl.evaluate.policies import TrainedPolicy, load_policy, save_policy
from ray_rl.evaluate.protocol import Scores, evaluate_checkpoint
from ray_rl.evaluate.submission import check_exportable, export_agent
from ray_rl.storage import Location


@dataclass(frozen=True)
class ExportFlags:
    """Flags of ``ray-rl export``."""

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URL")]
    """Folder or URL of a run (its latest checkpoint is taken), of a checkpoint or of a saved policy, or the name of one
    that ships with ray_rl."""
    out: Path
    """New or empty folder for what is written."""
    format: Literal["cage2", "policy", "onnx"] = "cage2"
    """cage2: an agent for the organisers' scripts, with numpy alone. policy: the weights in half precision, for
    ray-rl evaluate. onnx: the network alone, for other programs."""
    episodes: int = 1000
    """Episodes per cell for the score that is written beside it; 0: none."""
    seed: int = 0
    """Decides the episodes of the score."""
    collector: CollectorName = "sequential"
    """How they are run."""


def run(words: list[str]) -> int:
    """Export as the flags say; returns the exit code."""
    flags = parse(ExportFlags, "export", "Write a trained defender for others to play.", words)
    if flags.episodes < 0 or flags.seed < 0:
        raise UserError("--episodes and --seed must be 0 or more")
    if flags.out.exists() and (not flags.out.is_dir() or any(flags.out.iterdir())):
        raise UserError(f"--out {flags.out} is there already and not empty: name a new folder")
    source = place("checkpoint", flags.checkpoint)
    policy = load_policy(source)
    if flags.format == "cage2":
        check_exportable(policy)
    if flags.format == "onnx":
        load_onnx()
    score = score_in_words(_score(source, flags)) if flags.episodes else "Its score was not measured."
    try:
        _write(policy, flags, score)
    except OSError as error:
        raise UserError(f"cannot write to --out {flags.out}: {error.strerror}") from error
    make_console().print(f"{flags.out}: {policy.spec.name}\n{score}", soft_wrap=True)
    return 0


def _write(policy: TrainedPolicy, flags: ExportFlags, score: str) -> None:
    if flags.format == "cage2":
        export_agent(policy, flags.out, score)
    elif flags.format == "onnx":
        export_onnx(policy, flags.out, score)
    else:
        save_policy(policy, flags.out, " ".join(part for part in (policy.made_by, score) if part))


def _score(source: Location, flags: ExportFlags) -> Scores:
    return evaluate_checkpoint(
        source,
        n_episodes=flags.episodes,
        greedy=True,
        seed=flags.seed,
        collect=CollectConfig(collector=flags.collector),
    )


def score_in_words(scores: Scores) -> str:
    """A total with all that is needed to compare and reproduce it, as one sentence."""
    return (
        f"Total over {len(scores.cells)} cells under the rules {scores.rules}: {scores.total:.2f} ± "
        f"{scores.total_half_width:.2f} (95 % interval), {scores.cells[0].n_episodes} episodes per cell, greedy, "
        f"evaluation seed {scores.seed}, in the built-in simulator."
    )
