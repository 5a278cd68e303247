"""Flags from typed configurations, by tyro; every complaint is one line and ends with exit code 2."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import tyro
from pydantic import BaseModel, ValidationError

from ray_rl.config import UserError, describe, suggest

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
    read: Callable[..., tuple[Flags, list[str]]] = partial(
        tyro.cli,
        prog=f"ray-rl {command}",
        description=description,
        args=words,
        config=(tyro.conf.OmitArgPrefixes,),
        return_unknown_args=True,
    )
    try:
        with contextlib.redirect_stderr(complaint):
            flags, unknown = read(kind) if default is None else read(kind, default=default)
    except SystemExit as ended:
        if not ended.code:
            raise
        refused = _validation_error(ended)
        reason = describe(refused) if refused is not None else _one_line(complaint.getvalue())
        raise UserError(f"{reason} (ray-rl {command} --help lists the flags)") from ended
    if unknown:
        known = [f"--{name.replace('_', '-')}" for name in _flag_names(kind)]
        hint = suggest(unknown[0], known) if unknown[0].startswith("-") else ""
        what = "flag" if unknown[0].startswith("-") else "word"
        raise UserError(f"unknown {what} {unknown[0]}{hint} (ray-rl {command} --help lists the flags)")
    return flags


def _flag_names(kind: Any) -> list[str]:
    """Names of all fields; those of nested models in their place."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return [field.name for field in dataclasses.fields(kind)]
    names = []
    for name, field in kind.model_fields.items():
        nested = field.annotation
        is_group = isinstance(nested, type) and issubclass(nested, BaseModel)
        names += _flag_names(nested) if is_group else [name]
    return names


def _validation_error(error: BaseException) -> ValidationError | None:
    """What pydantic refused, where that is why tyro gave up."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__context__
    return cause


def _one_line(complaint: str) -> str:
    """Tyro draws a box around its complaint, and help below a rule in it; keep the words above the rule."""
    lines = [line.strip("│ \t") for line in complaint.splitlines() if not line.startswith(("╭", "╰"))]
    rule = next((number for number, line in enumerate(lines) if line.startswith("──")), len(lines))
    text = " ".join(line for line in lines[:rule] if line)
    return text.split(" Got errors:")[0].rstrip(".")


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
