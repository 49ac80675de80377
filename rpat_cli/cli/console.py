"""The only place that prints. Results go to stdout; progress, remarks and errors to stderr, so pipes stay clean."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def error(message: str) -> None:
    """One clear message in words, without markup: a path may hold square brackets."""
    err.print("[bold red]error:[/] ", end="")
    err.print(message, markup=False, soft_wrap=True)


def glossary(entries: Mapping[str, str]) -> Table:
    """Names and what they mean, in two columns."""
    table = Table.grid(padding=(0, 2))
    for name, meaning in entries.items():
        table.add_row(Text(name, style="bold"), Text(meaning))
    return table


def say(message: str) -> None:
    """A remark that is not the result."""
    err.print(message, markup=False, soft_wrap=True)
