"""What a new user does: the command, in a process of its own, by what README and docs say of it."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUICK = ("--epochs", "1", "--steps", "1", "--val-size", "100", "--eval", "clean,pgd-2")
"""A training of seconds. `--steps` and the rest are said by the help page."""


@cache
def pages() -> dict[str, str]:
    """README and the pages of docs/, by name."""
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return {str(each.relative_to(ROOT)): each.read_text(encoding="utf-8") for each in files}


def block(page: str, containing: str) -> str:
    """The one Python block of a page that has these words."""
    return block_of(pages()[page], containing)


def block_of(markdown: str, containing: str) -> str:
    found = re.findall("^```python\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)
    (text,) = [each for each in found if containing in each]
    return str(text)


def undocumented(arguments: tuple[str, ...]) -> list[str]:
    """The command and the options that no page names as they are written here."""
    text = "\n".join(pages().values())
    command = "rpat " + " ".join(arguments[:2] if arguments[0] == "runs" else arguments[:1])
    options = [each.partition("=")[0] for each in arguments if each.startswith("--")]
    names = [command.removesuffix(" --json"), *options]
    return [name for name in names if not re.search(rf"{re.escape(name)}(?![\w-])", text)]


def rpat(home: Path, *arguments: object, code: int = 0) -> str:
    """stdout of `rpat ARGUMENTS`, run in `home`; fails if its exit code is another one."""
    words = tuple(map(str, arguments))
    assert not undocumented(words)
    return python(home, "-m", "rpat_cli", *words, code=code)


def script(home: Path, text: str) -> str:
    """stdout of a Python script in the folder `home`."""
    (home / "script.py").write_text(text, encoding="utf-8")
    return python(home, "script.py")


def python(home: Path, *arguments: str, code: int = 0) -> str:
    here = os.pathsep.join([str(ROOT), str(ROOT / "rpat_cli" / "api")])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=home,
        env={**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout
