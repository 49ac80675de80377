"""Suites of attacks in YAML files: a list of entries as `rpat_cli.evaluation.suite` reads them."""

from pathlib import Path

from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.suite import AttackSpec, Entry, Overrides, parse_entries
from rpat_cli.recipe.layers import read_document

ENDINGS = (".yaml", ".yml")


def read_suite(
    text: str, overrides: Overrides | None = None, *, source: str = "--attack"
) -> list[AttackSpec]:
    """What `--attack` asks for: words of the language, suite files, or both, separated by commas.

    Raises `ConfigError` with every mistake at once, those in a file with their line.
    """
    entries: list[Entry] = []
    for word in (word.strip() for word in text.split(",")):
        is_file = word.endswith(ENDINGS) and not word.startswith("transfer:")
        entries += _entries(Path(word).expanduser()) if is_file else [Entry(word, source)]
    return parse_entries(entries, overrides, source=source)


def _entries(path: Path) -> list[Entry]:
    content, lines = read_document(path, "suite")
    if not isinstance(content, list) or not content:
        example = "Example: '- clean' and below it '- {attack: pgd, steps: 50}'."
        raise ConfigError(Problem("", "a suite is a list of attacks.", str(path), example))
    return [
        Entry(
            item,
            f"{path}:{lines[(str(index),)]}",
            {
                key: f"{path}:{line}"
                for (top, *rest), line in lines.items()
                if top == str(index)
                for key in rest[-1:]
            },
        )
        for index, item in enumerate(content)
    ]
