"""The two consoles. Results go to stdout; progress, remarks and errors to stderr, which keeps pipes
clean."""

from collections.abc import Mapping
from inspect import cleandoc
from re import sub

from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console(highlight=False, emoji=False)  # a label such as transfer:x: is not an emoji
err = Console(stderr=True, highlight=False, emoji=False)


def error(message: str) -> None:
    """Print an error message, without markup: a path may contain square brackets."""
    err.print("[bold red]error:[/] ", end="")
    err.print(message, markup=False, soft_wrap=True)


def help_text(text: str) -> str:
    """A help text or docstring with each paragraph in one line, for typer to wrap.

    Typer keeps the line breaks within a paragraph, which are those of our source code.
    """
    paragraphs = cleandoc(text).split("\n\n")
    return "\n\n".join(sub(r"\s*\n\s*", " ", paragraph) for paragraph in paragraphs)


def glossary(entries: Mapping[str, str]) -> Table:
    """Names and what they mean, in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # wrap, never cut: the attacks of a suite are one long word
    for name, meaning in entries.items():
        table.add_row(Text(name, style="bold"), Text(meaning))
    return table


def say(message: str) -> None:
    """Print a remark that is not part of the result."""
    err.print(message, markup=False, soft_wrap=True)
