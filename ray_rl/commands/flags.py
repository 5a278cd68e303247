"""Flags from typed configurations, by tyro; every complaint is one line and ends with exit code 2."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import tyro
from pydantic import BaseModel, ValidationError
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ray_rl.config import Resume, UserError, describe, suggest
from ray_rl.storage import Location, is_remote, location, storage_errors

Flags = TypeVar("Flags")

_OWN_TYPES = ConstructorRegistry()
"""How types of ours are read from the command line."""


@_OWN_TYPES.primitive_rule
def _resume_flag(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """``--resume`` alone is true; a word behind it may say otherwise."""
    if info.type != Resume:
        return None
    meanings: dict[tuple[str, ...], Resume] = {(): True, ("auto",): "auto", ("no",): False}

    def read(words: list[str]) -> Resume:
        if tuple(words) not in meanings:
            raise ValueError(f"--resume takes no word, or auto, or no; not {' '.join(words)!r}")
        return meanings[tuple(words)]

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[auto|no]",
        instance_from_str=read,
        is_instance=lambda value: value in meanings.values(),
        str_from_instance=lambda value: ["auto" if value == "auto" else "yes" if value else "no"],
    )


@_OWN_TYPES.primitive_rule
def _numbers_flag(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Whole numbers with spaces or commas between them."""
    item, *others = get_args(info.type) or (None,)
    if get_origin(item) is Annotated:  # its bounds are pydantic's affair
        item = get_args(item)[0]
    if get_origin(info.type) is not tuple or item is not int or others != [...]:
        return None

    def read(words: list[str]) -> tuple[int, ...]:
        numbers = [number for word in words for number in word.split(",")]
        if not all(re.fullmatch(r"-?\d+", number) for number in numbers):
            raise ValueError(f"takes whole numbers, not {' '.join(words)!r}")
        return tuple(map(int, numbers))

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[INT [INT ...]]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(number, int) for number in value),
        str_from_instance=lambda value: [str(number) for number in value],
    )


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
        with contextlib.redirect_stderr(complaint), _OWN_TYPES:
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
    """Tyro draws a box around its complaint, and help below a rule in it; keep the words above the rule.

    Where the box cannot be encoded there is none, and a rule below the headline.
    """
    lines = [line.strip("│ \t") for line in complaint.splitlines() if not line.startswith(("╭", "╰"))]
    if len(lines) > 1 and lines[1].startswith("--"):
        del lines[:2]
    rule = next((number for number, line in enumerate(lines) if line.startswith(("──", "--"))), len(lines))
    text = " ".join(line for line in lines[:rule] if line).split(" Got errors:")[0].rstrip(".")
    several = re.fullmatch(r"Error parsing (\S+): no type matching (.+) could be instantiated from \[(.*)\]", text)
    return text if several is None else f"{several[1]} takes {several[2]}, not {several[3]}"


def take(words: list[str], flag: str, what: str) -> tuple[str | None, list[str]]:
    """Split off ``FLAG VALUE`` (or ``FLAG=VALUE``), which gives the defaults of all other flags."""
    for position, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}="), words[:position] + words[position + 1 :]
        if word == flag:
            if position + 1 == len(words):
                raise UserError(f"{flag} needs {what}")
            return words[position + 1], words[:position] + words[position + 2 :]
    return None, words


def place(flag: str, name: str) -> Location:
    """The place that a flag names, to read from; a storage that does not answer is found here.

    Args:
        flag: Name of the flag, for messages.
        name: What the user gave.

    Raises:
        UserError: When it is in no storage that can be reached.
    """
    try:
        found = location(name)
        if is_remote(found):
            with storage_errors():
                found.exists()
    except (ValueError, OSError) as error:
        raise UserError(f"cannot read {flag} {name}: {error}; check the name, the address and the rights") from error
    return found


def check_files(**files: Path | None) -> None:
    """Find out before the work whether its results can be written.

    Args:
        **files: What the user gave, by the name of the flag.

    Raises:
        UserError: Names the flag whose file has no folder, or is one.
    """
    for name, path in files.items():
        if path is None:
            continue
        if path.is_dir():
            raise UserError(f"--{name} {path} is a folder: name a file")
        folder = path.absolute().parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise UserError(f"cannot write --{name} {path}: {folder} is no folder that can be written to")


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
