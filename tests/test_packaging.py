"""What is built and installed: both packages, all their files, and the program."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: setuptools builds in the folder of the sources."""
    there = tmp_path_factory.mktemp("source") / "rpat"
    there.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            copy(path, there)
    for folder in ("rpat_cli", "tests", "docs"):
        copytree(ROOT / folder, there / folder, ignore=ignore_patterns("__pycache__", ".*"))
    return there


def build(source: Path, what: str, to: Path) -> Path:
    """As pip builds, with the setuptools that is installed: nothing is downloaded."""
    pytest.importorskip("setuptools", minversion="77")
    to.mkdir(exist_ok=True)
    code = f"import setuptools.build_meta as b; print('built', b.build_{what}({str(to)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return to / done.stdout.strip().splitlines()[-1].removeprefix("built ")


def shipped() -> set[str]:
    """The files of the package in the repository, by the places where they are installed."""
    files = [path for path in (ROOT / "rpat_cli").rglob("*") if path.is_file()]
    names = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    return {name.removeprefix("rpat_cli/api/") for name in names}


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return build(source, "wheel", source.parent / "wheel")


def test_a_tag_of_this_commit_is_its_version() -> None:
    from rpat_cli.version import __version__

    command = ["git", "tag", "--points-at", "HEAD", "--list", "v*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) <= {f"v{__version__}"}


@pytest.mark.slow
def test_the_wheel_has_every_file_once(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(names) == sorted(shipped())


@pytest.mark.slow
def test_the_source_distribution_builds_the_same_wheel(source: Path, wheel: Path) -> None:
    file = build(source, "sdist", source.parent / "sdist")
    with tarfile.open(file) as archive:
        archive.extractall(source.parent / "unpacked", filter="data")
    [unpacked] = (source.parent / "unpacked").iterdir()
    for needed in ("README.md", "LICENSE", "CHANGELOG.md", "docs", "tests/golden/trades.npz"):
        assert (unpacked / needed).exists(), needed
    again = build(unpacked, "wheel", source.parent / "again")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


QUICK_START = """
import torch, rpat
x, y = torch.rand(40, 1, 28, 28), torch.arange(40) % 4
run = rpat.train(data=(x, y), model="small-cnn", method="trades", ra=True, epochs=1, steps=1,
                 val_size=8, eval="clean", set={"validation.steps": 1}, seed=1)
print(run)
print(rpat.__file__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_installed_it_runs_from_anywhere(
    source: Path, wheel: Path, tmp_path: Path, editable: bool
) -> None:
    """In an environment of its own, that sees the libraries of this one but not this rpat."""
    environment = tmp_path / "venv"
    bare = [sys.executable, "-m", "venv", "--without-pip", environment]
    subprocess.run(bare, check=True, timeout=200)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    what = ["--editable", str(source)] if editable else [str(wheel)]
    here = sysconfig.get_path("purelib")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=env, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    home = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # The libraries only: an editable install of this rpat hooks in through a .pth file, which is
    # not read in a folder that is itself added by one.
    Path(home, "libraries.pth").write_text(f"{here}\n")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", "--quiet"]
    run(python, "-m", "pip", "install", *options, *what)
    found = run(python, "-c", QUICK_START)
    assert "Test accuracy in percent" in found
    where = source if editable else environment
    assert Path(found.strip().splitlines()[-1]).is_relative_to(where)
    program = python.with_name("rpat")
    assert run(program, "--version").startswith("rpat ")
    assert "fashion-mini" in run(program, "recipes")
