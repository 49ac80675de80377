"""Suites of attacks in YAML files: a list of entries as `rpat_cli.evaluation.suite` reads them."""

from pathlib import Path

from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.suite import AttackSpec, Entry, Overrides, parse_entries
from rpat_cli.recipe.yaml_lines import KeyPath, read_document
from rpat_cli.records.files import user_path

SUFFIXES = (".yaml", ".yml")


def read_suite(
    text: str, overrides: Overrides | None = None, *, source: str = "--attack"
) -> list[AttackSpec]:
    """What `--attack` asks for: attacks, suites and suite files, separated by commas.

    Raises `ConfigError` with every mistake at once, those in a file with their line.
    """
    entries: list[Entry] = []
    for word in (word.strip() for word in text.split(",")):
        is_file = word.endswith(SUFFIXES) and not word.casefold().startswith("transfer:")
        entries += _entries(user_path(word)) if is_file else [Entry(word, source)]
    return parse_entries(entries, overrides, source=source)


def _entries(path: Path) -> list[Entry]:
    content, lines = read_document(path, "suite")
    if not isinstance(content, list) or not content:
        example = "Example: '- clean' and below it '- {attack: pgd, steps: 50}'."
        raise ConfigError(Problem("", "a suite is a list of attacks.", str(path), example))
    origins = _origins(path, lines)
    return [
        Entry(item, f"{path}:{lines[(str(index),)]}", origins.get(str(index), {}))
        for index, item in enumerate(content)
    ]


def _origins(path: Path, lines: dict[KeyPath, int]) -> dict[str, dict[str, str]]:
    """Where each setting of each entry of the suite is written, by the entry's index."""
    origins: dict[str, dict[str, str]] = {}
    for keys, line in lines.items():
        if len(keys) > 1:
            origins.setdefault(keys[0], {})[keys[-1]] = f"{path}:{line}"
    return origins
