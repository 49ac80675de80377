"""The tutorials do what they say: their commands run in the order of the page, made short.

A comment before a block says what else it needs: `not run: REASON`, `file: NAME` (the block is that
file), `exit: CODE`, `runs with: WHAT` (files that the reader has).
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rpat_cli.methods import METHODS
from rpat_cli.models import MODELS

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|file|exit|runs with): (?P<note>[^>]*) -->\n)?"
    r"^```(?P<language>sh|python|yaml)\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
SHORT = {
    "train": ["--epochs", "1", "--steps", "1", "--eval", "clean", "--val-size", "100"],
    "eval": ["--limit", "30", "--jobs", "1"],
}
"""Options that make what takes long short; of two the last counts."""


def blocks(page: str) -> Iterator[re.Match[str]]:
    return BLOCK.finditer((ROOT / "docs" / "tutorials" / page).read_text(encoding="utf-8"))


def calls(text: str) -> list[list[str]]:
    """The calls of rpat in a block of shell commands, as words."""
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words[1:] for words in lines if words and words[0] == "rpat"]


def shortened(words: list[str]) -> list[str]:
    short = SHORT.get(words[0], [])
    if words[0] == "eval" and "--check" in words:
        short = ["--limit", "100", "--jobs", "1"]  # the checks need images that are right
    if words[0] == "train" and "imagefolder" in words:
        short = [*short[:-1], "4"]
    return [*words, *short]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reader works, with what the pages take for granted."""
    for table in (METHODS, MODELS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    [plugin] = re.findall(r"^```python\n(.*?METHODS\.add.*?)^```", page, re.M | re.S)
    (tmp_path / "alp.py").write_text(plugin)
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            images(tmp_path / "photos" / split / name, number)
    return tmp_path


def images(folder: Path, number: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for each in range(8):
        Image.new("RGB", (20, 30), (200 * number, 10 * each, 0)).save(folder / f"{each}.png")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["first-hour", "your-own", "evaluate-a-defense", "cluster"])
def test_its_commands_run(page: str, folder: Path) -> None:
    from rpat_cli.cli.app import app

    ran = 0
    for block in blocks(f"{page}.md"):
        if block["mark"] == "file":
            (folder / block["note"]).write_text(block["text"])
        elif block["language"] == "sh" and block["mark"] != "not run":
            for words in calls(block["text"]):
                done = CliRunner().invoke(app, shortened(words))
                expected = int(block["note"]) if block["mark"] == "exit" else 0
                assert done.exit_code == expected, (words, done.output[-1500:], done.exception)
                ran += 1
    assert ran


def test_what_is_not_run_says_why() -> None:
    pages = [path.name for path in (ROOT / "docs" / "tutorials").glob("*.md")]
    left_out = [block for page in pages for block in blocks(page) if block["mark"] == "not run"]
    assert left_out
    assert all(len(block["note"].split()) >= 2 for block in left_out)
