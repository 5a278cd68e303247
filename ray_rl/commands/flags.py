"""Flags from typed configurations, by tyro; every complaint is one line and ends with exit code 2."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import tyro
from pydantic import ValidationError

from ray_rl.config import UserError, describe

Flags = TypeVar("Flags")


def parse(kind: type[Flags], command: str, description: str, words: list[str], default: Flags | None = None) -> Flags:
    """Read the flags of a command.

    Args:
        kind: A dataclass or pydantic model; its fields are the flags, flat.
        command: Name of the command, for help and messages.
        description: What it does, for help.
        words: What follows the command on the command line.
        default: Values to start from.

    Raises:
        UserError: For an unknown flag or a value that does not fit.
        SystemExit: With code 0, after help was printed.
    """
    words = [re.sub(r"^--([a-z0-9_]+)", lambda m: m.group(0).replace("_", "-"), word) for word in words]
    complaint = io.StringIO()
    read: Callable[..., Flags] = partial(
        tyro.cli,
        prog=f"ray-rl {command}",
        description=description,
        args=words,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    try:
        with contextlib.redirect_stderr(complaint):
            return read(kind) if default is None else read(kind, default=default)
    except ValidationError as error:
        raise UserError(describe(error)) from error
    except SystemExit as ended:
        if not ended.code:
            raise
        raise UserError(f"{_one_line(complaint.getvalue())} (ray-rl {command} --help lists the flags)") from ended


def _one_line(complaint: str) -> str:
    """Tyro draws a box around its complaint; keep the words of it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", complaint)
    lines = [line.strip("│╭╰─╮╯ \t") for line in text.splitlines()]
    kept = []
    for line in lines:
        if line.startswith(("For full helptext", "Parsing error", "Unrecognized options")) and "--help" in line:
            break
        if line and line not in ("Parsing error", "Unrecognized options"):
            kept.append(line)
    return " ".join(kept).rstrip(".")


def save_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write what a table shows, when the user asked for it.

    Raises:
        UserError: When the file cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write --json {path}: {error.strerror}") from error
