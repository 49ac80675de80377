"""Folders that may be read and not written to, as other people's are: the message says so before
anything is computed, and nothing in them changes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

import rpat_cli as rpat

DROPPED = "-dac_override,-fowner"
"""What lets root write where the permissions of its own files forbid it."""


def as_anybody() -> list[str]:
    """What is put before a command so that permissions hold for it, too."""
    if os.geteuid():
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root writes everywhere, and there is no setpriv to run as less")
    prefix = [setpriv, f"--bounding-set={DROPPED}"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("root writes everywhere, and may not give that up here")
    return prefix


def run(*arguments: str, cwd: Path) -> tuple[int, str]:
    """The exit code and what is on stderr, in one line."""
    program = [sys.executable, "-m", "rpat_cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*as_anybody(), *program],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, " ".join(done.stderr.split())


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file): sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run in it, where nothing may be written."""
    as_anybody()
    folder = tmp_path_factory.mktemp("locked")
    rpat.train(
        data={"val_size": 100},
        model="small-cnn",
        method="standard",
        epochs=1,
        validation={"steps": 1, "limit": 20},
        eval=["clean"],
        out=folder / "run",
    )
    everything = [folder, *folder.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in everything:
        path.chmod(0o755)


@pytest.mark.slow
def test_a_run_of_others_is_evaluated_elsewhere(locked: Path, tmp_path: Path) -> None:
    before = contents(locked)
    code, said = run("eval", str(locked / "run"), "-a", "clean", "--limit", "20", cwd=tmp_path)
    assert code == 0, said
    assert "run cannot be written to: the results go to runs/external/" in said
    assert len(list((tmp_path / "runs/external").rglob("*.json"))) == 1
    assert contents(locked) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("eval", "run", "-a", "autoattack"), "the results cannot be written to"),
        (("eval", "run", "-a", "clean", "--out", "x"), "the results cannot be written to x."),
        (("train", "--resume", "run", "--epochs", "2"), "cannot write run/log.txt"),
        (("train", "--epochs", "1"), "cannot make the run folder runs/"),
    ],
    ids=["eval", "eval --out", "resume", "train"],
)
def test_nothing_is_begun_that_could_not_be_saved(
    locked: Path, arguments: tuple[str, ...], expected: str
) -> None:
    before = contents(locked)
    code, said = run(*arguments, "--quiet", cwd=locked)
    assert code == 1, said
    assert said.startswith(f"error: {expected}"), said
    assert "bug" not in said
    assert contents(locked) == before
