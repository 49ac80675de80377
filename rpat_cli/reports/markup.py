"""Texts of users (labels of axes and attacks, reasons of failures) inside Markdown and LaTeX: shown
as they are, and never read as markup."""

import re

from rpat_cli.text import DASH

_MARKDOWN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "`": "\\`", "*": "\\*", "\\": "\\\\"}
)

_TEX = str.maketrans(
    {
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
    }
    | {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", DASH: "--", "±": r"$\pm$"}
)


def one_line(text: str) -> str:
    """The text with every line break, and what counts as one, as a space."""
    return " ".join(text.splitlines())


def markdown_text(text: str) -> str:
    """A text in a line or a table cell of Markdown."""
    return one_line(text).translate(_MARKDOWN).replace("](", "]\\(")


def markdown_block(text: str) -> str:
    """Several lines as they are, in a fence longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def latex_text(text: str) -> str:
    """A text in a line or a table cell of LaTeX."""
    return one_line(text).translate(_TEX)
