"""The pages do what they say: their commands run in the order of the page, made short, in a folder
of the page's own where runs and images lie as it takes for granted.

A comment before a block says what else it needs:

    not run: REASON               none of its lines
    not run with WORDS: REASON    not the lines in which one of these words is
    file: NAME                    the block is that file
    exit: CODE                    how its commands end
    runs with: WHAT               files that the reader has
    ci: ...                       .ci/run runs it

What is not run is checked for its options only, by tests/test_readme.py.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from rpat_cli.attacks import ATTACKS
from rpat_cli.diagnostics import DIAGNOSTICS
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.models import MODELS
from rpat_cli.tracking import TRACKERS

ROOT = Path(__file__).parent.parent.parent
ALL_PAGES = ["README.md", ".github/CONTRIBUTING.md"]
ALL_PAGES += [file.relative_to(ROOT).as_posix() for file in sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|file|exit|runs with|ci)(?: with (?P<words>[^>]*?))?"
    r": (?P<note>[^:>]*) -->\n)?"
    r"^```(?P<language>sh|python|yaml)\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
NEVER_RUN = ("not run", "ci")
TINY = ("--epochs", "1", "--steps", "1", "--val-size", "100")
OLD_SWEEP = ROOT / "tests" / "compat" / "data" / "sweep"
PLACEHOLDERS = {"RUN": "last", "RUN_A": "runs/a", "RUN_B": "runs/b", "IMAGE": "photo.jpg"}


def blocks(page: str) -> list[re.Match[str]]:
    return list(BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")))


def lines_to_run(block: re.Match[str]) -> list[str]:
    if block["language"] != "sh" or (block["mark"] in NEVER_RUN and not block["words"]):
        return []
    left_out = block["words"].split() if block["words"] else []
    lines = [line for line in block["text"].splitlines() if line and not line.startswith("#")]
    return [line for line in lines if not any(word in line for word in left_out)]


def shortened(words: list[str]) -> list[str]:
    """The words with options that make what takes long short; of two the last counts."""
    if words[0] == "train" and "--resume" not in words:
        if "--dry-run" in words:
            return [*words, "--batch-size", "2", "--steps", "1"]
        of_folders = ["--val-size", "4"] if "imagefolder" in words else []
        return [*words, *TINY, *of_folders, "--eval", "clean"]
    if words[0] == "eval":
        images = 100 if "--check" in words else 30  # the checks need images that are right
        attack = [] if "--attack" in words else ["--attack", "quick"]
        return [*without_long(words), "--limit", str(images), "--jobs", "1", *attack]
    return words


def without_long(words: list[str]) -> list[str]:
    """AutoAttack's parts of thousands of queries are left out, but for an audit, which needs it."""
    if "--audit" in words:
        return words
    return [re.sub(r"\bautoattack\b(?!-)", "autoattack:apgd-ce", word) for word in words]


class Reader:
    """Somebody who types what a page says."""

    def __init__(self, home: Path, run: Path) -> None:
        self.home = home
        self.run = run

    def types(self, line: str, exit_code: int) -> None:
        words = shlex.split(line, comments=True)
        if words[:2] == ["python", "-m"]:
            subprocess.run([sys.executable, *words[1:]], cwd=self.home, check=True, timeout=60)
            return
        assert words[0] == "rpat", f"{line}: run it here, or say on the page why not"
        words = [PLACEHOLDERS.get(word, word) for word in words[1:]]
        self.has_what_is_named(words)
        done = rpat(shortened(words))
        assert done.exit_code == exit_code, (words, done.output[-1500:], done.exception)

    def has_what_is_named(self, words: list[str]) -> None:
        """A run under every name of a run that the page has not trained itself; sweeps likewise."""
        named = [
            word for before, word in zip(["", *words], words, strict=False) if before != "--out"
        ]
        for kind, original in (("runs", self.run), ("sweeps", OLD_SWEEP)):
            for place in re.findall(rf"(?<![\w/.]){kind}/[\w-]+", " ".join(named)):
                if not (self.home / place).exists():
                    copytree(original, self.home / place)


def rpat(words: list[str]) -> Any:
    from rpat_cli.cli.app import app

    return CliRunner().invoke(app, words, input="y\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run."""
    folder = tmp_path_factory.mktemp("pages") / "run"
    done = rpat(["train", *TINY, "--eval", "clean,pgd-2", "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def reader(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    for table in (METHODS, MODELS, REGULARIZERS, ATTACKS, DIAGNOSTICS, TRACKERS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            images(tmp_path / "photos" / split / name, number)
    for name in ("photo.jpg", "photo.png"):
        Image.new("L", (40, 30)).save(tmp_path / name)
    copytree(run, tmp_path / "runs" / "first")
    return Reader(tmp_path, run)


def images(folder: Path, number: int) -> None:
    folder.mkdir(parents=True)
    for each in range(8):
        Image.new("RGB", (20, 30), (200 * number, 10 * each, 0)).save(folder / f"{each}.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in ALL_PAGES if any(map(lines_to_run, blocks(page)))]
)
def test_its_commands_run(page: str, reader: Reader) -> None:
    for other in (page, "docs/methods.md"):  # whose plugin other pages use
        for block in blocks(other):
            if block["mark"] == "file":
                (reader.home / block["note"]).write_text(block["text"], encoding="utf-8")
    for block in blocks(page):
        expected = int(block["note"]) if block["mark"] == "exit" else 0
        for line in lines_to_run(block):
            reader.types(line, expected)


def test_what_is_not_run_says_why() -> None:
    left_out = [block for page in ALL_PAGES for block in blocks(page) if block["mark"] == "not run"]
    assert left_out
    assert all(len(block["note"].split()) >= 2 for block in left_out)
    words = [(block["text"], word) for block in left_out for word in (block["words"] or "").split()]
    assert [word for text, word in words if word not in text] == []


def test_every_block_of_python_is_run_by_a_test() -> None:
    """Here as a file, or as a script by tests/calls/test_python_page.py."""
    as_scripts = ("README.md", "docs/python.md", "docs/runs.md")
    for page in ALL_PAGES:
        own = [block for block in blocks(page) if block["language"] == "python"]
        assert page in as_scripts or all(block["mark"] == "file" for block in own), page
