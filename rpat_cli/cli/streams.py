"""Output streams that cannot show every character: pipes and terminals in ASCII or Latin-1."""

import codecs
import sys

PLAIN = {
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{MINUS SIGN}": "-",
    "\N{PLUS-MINUS SIGN}": "+/-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{BULLET}": "*",
    "\N{MIDDLE DOT}": "*",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{DOUBLE VERTICAL LINE}": "||",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}": ">",
}
"""What stands for a character that a stream cannot show; any other is shown by its number."""

NAME = "rpat_plain"


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    shown = (PLAIN.get(c, c.encode("ascii", "backslashreplace").decode()) for c in wrong)
    return "".join(shown), error.end


def make_streams_safe() -> None:
    """No character that is printed from now on is an error: what a stream cannot show is written
    with what it can."""
    codecs.register_error(NAME, _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a notebook's streams show everything
            reconfigure(errors=NAME)
