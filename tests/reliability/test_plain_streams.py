"""Streams that cannot show every character: nothing that rpat prints is an error there."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from rpat_cli.cli import app
from rpat_cli.cli.streams import make_streams_safe
from rpat_cli.text import DASH


class Stream(io.TextIOWrapper):
    """A pipe in some encoding, and what came through it."""

    def __init__(self, encoding: str) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, errors="strict")

    @property
    def text(self) -> str:
        self.flush()
        return self.bytes.getvalue().decode(self.encoding)


every_encoding = pytest.mark.parametrize(
    "encoding", ["ascii", "latin-1", "cp437", "cp1252", "utf-8"]
)


@contextmanager
def streams(encoding: str) -> Iterator[tuple[Stream, Stream]]:
    with redirect_stdout(Stream(encoding)) as out, redirect_stderr(Stream(encoding)) as err:
        yield out, err


def run(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rpat", *arguments])
        with pytest.raises(SystemExit) as leaving:
            app.main()
    return int(leaving.value.code or 0)


@every_encoding
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["eval", "--help"],
        ["sweep", "--help"],
        ["eval", "--attack", "list"],
        ["recipes"],
        ["recipes", "show", "quickstart"],
    ],
    ids=" ".join,
)
def test_every_page_is_shown(encoding: str, arguments: list[str]) -> None:
    with streams(encoding) as (out, err):
        assert run(*arguments) == 0
    assert out.text
    assert "error" not in err.text


@every_encoding
@pytest.mark.parametrize("name", [DASH, "\u00b1", "日本", "\udce9", "🙂", "é"])
def test_any_name_in_a_message_is_shown(encoding: str, name: str) -> None:
    with streams(encoding) as (_, err):
        assert run("train", "--method", f"x{name}", "--dry-run") == 2
    assert "unknown method 'x" in err.text
    assert "bug" not in err.text


@every_encoding
def test_dashes_and_signs_keep_their_meaning(encoding: str) -> None:
    with streams(encoding) as (out, _):
        make_streams_safe()
        print(f"46.7{DASH}55.4 \u00b1 0.3 \u2026 {DASH}")
    plain = out.text.strip().replace(DASH, "-").replace("\u00b1", "+/-").replace("\u2026", "...")
    assert plain == "46.7-55.4 +/- 0.3 ... -"
