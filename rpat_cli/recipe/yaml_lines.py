"""YAML files read with the line of every key, so that a mistake can be reported where it was
made."""

import codecs
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from rpat_cli.errors import ConfigError, Problem, did_you_mean
from rpat_cli.recipe.yaml_loader import Loader
from rpat_cli.records.regular import read_regular

KeyPath = tuple[str, ...]
"""Where a value is in nested mappings: `("threat", "eps")`."""


MAX_BYTES = 200_000
"""Of a file: a recipe has some thousand, and Python reads so many in a second."""


MAX_SHOWN = 200
"""Characters of PyYAML's own words, which repeat what was written."""


def read_document(path: Path, kind: str = "recipe") -> tuple[Any, dict[KeyPath, int]]:
    """The content of a YAML file, and the line of each key and of each item of a list
    (`("eval", "0")`).

    Raises `ConfigError` for a file that is missing, too long, not YAML or beyond the limits of
    `Loader`, or has a duplicate key.
    """
    text = _text_of(path, kind)
    if "\0" in text:  # half of every letter in UTF-16
        raise ConfigError(_other_encoding(text.encode(), 0, path))
    try:
        values, node = _load(text)
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(error, path)) from None
    lines: dict[KeyPath, int] = {}
    duplicates = [
        Problem(".".join(key), "duplicate key.", f"{path}:{line}", "Keep only one of them.")
        for key, line in _walk(node, (), lines)
    ]
    if duplicates:
        raise ConfigError(*duplicates)
    return values, lines


def _load(text: str) -> tuple[Any, yaml.Node | None]:
    """The one document in a text, and the nodes that it is made of, which know their lines."""
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    finally:
        loader.dispose()


def _text_of(path: Path, kind: str) -> str:
    try:
        content = read_regular(path, MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            message = f"is longer than {MAX_BYTES:,} bytes, which no {kind} file needs."
            raise ConfigError(Problem("", message, str(path)))
        return content.decode("utf-8")
    except FileNotFoundError:
        neighbors = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, neighbors)
        raise ConfigError(Problem("", f"there is no such {kind} file.", str(path), hint)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(_other_encoding(error.object, error.start, path)) from None
    except OSError as error:
        message = f"cannot be read as a {kind} file: {error.strerror}."
        raise ConfigError(Problem("", message, str(path))) from None


def _other_encoding(content: bytes, start: int, path: Path) -> Problem:
    """The problem with a file that is no UTF-8 from the byte at `start` on."""
    line = content[:start].count(b"\n") + 1
    what = f"is not encoded in UTF-8 (line {line})."
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        what = "is encoded in UTF-16 or UTF-32, not in UTF-8."
    return Problem("", what, str(path), "Open it in an editor and save it as UTF-8.")


def _not_yaml(error: yaml.YAMLError, path: Path) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem("", f"is not valid YAML: {' '.join(str(error).split())}", str(path))
    context = ""
    if error.context and error.context_mark:
        context = f", {error.context} that begins in line {error.context_mark.line + 1}"
    place = f"{path}:{error.problem_mark.line + 1}"
    problem = str(error.problem)[:MAX_SHOWN]
    return Problem("", f"is not valid YAML: {problem}{context}.", place)


def _walk(node: Any, prefix: KeyPath, lines: dict[KeyPath, int]) -> Iterable[tuple[KeyPath, int]]:
    """Note the line of every key and item below `node`; yield duplicate keys, of which PyYAML would
    silently drop the first."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            path = (*prefix, str(index))
            lines[path] = item.start_mark.line + 1
            yield from _walk(item, path, lines)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        path, line = (*prefix, str(key.value)), key.start_mark.line + 1
        if key.value in seen:
            yield path, line
        seen.add(key.value)
        lines[path] = line
        yield from _walk(value, path, lines)
