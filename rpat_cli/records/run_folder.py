"""The folder of one run: names that a person can read, never overwritten."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpat_cli.errors import RunFolderError, did_you_mean
from rpat_cli.records.lock import locked

if TYPE_CHECKING:
    from rpat_cli.recipe.schema import Recipe

RUNS = Path("runs")


@dataclass(frozen=True)
class RunFolder:
    """`recipe.yaml  metrics.jsonl  log.txt  report.json  report.html
    checkpoints/{last,best}[_wa].pt  evals/*.json`"""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def report(self) -> Path:
        return self.path / "report.json"

    @property
    def html(self) -> Path:
        return self.path / "report.html"

    @property
    def evals(self) -> Path:
        return self.path / "evals"

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.pt"

    @contextmanager
    def training(self) -> Iterator[None]:
        """While entered, no other process trains here. Raises `RunFolderError` if one does
        already."""
        with self.log.open("a", encoding="utf-8") as log:
            if not locked(log):
                raise RunFolderError(
                    f"another process is training {self.path}: wait for it, or stop it first."
                )
            yield

    def new_eval(self, stem: str) -> Path:
        """A path in `evals/` that does not exist yet: earlier results are never overwritten."""
        return _free(self.evals / f"{stem}.json")


def run_name(recipe: "Recipe") -> str:
    """`2026-11-22_fashion-mini_small-cnn_consistency+ra_s0`"""
    extras = [*sorted(recipe.regularizers()), *recipe.collaborators()]
    attack = [recipe.attack.name] if recipe.attack.name != "pgd" else []
    method = "+".join(
        [recipe.method.name, *attack, *extras, *([recipe.mix.name] if recipe.mix else [])]
    )
    model = recipe.model.replace(":", "-").replace("/", "-")
    return f"{date.today().isoformat()}_{recipe.data.name}_{model}_{method}_s{recipe.seed}"


def plan_run(recipe: "Recipe", out: Path | None = None) -> RunFolder:
    """Where a new run goes: `out`, or a readable new name under `runs/`. Nothing is made yet.

    Raises `RunFolderError` if `out` holds something already.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        advice = (
            f"Go on with it: rpat train --resume {out}. Or choose another --out."
            if is_run(out)
            else ("Choose another --out; nothing is overwritten.")
        )
        raise RunFolderError(f"{out} exists already and is not empty. {advice}")
    return RunFolder(out or _free(RUNS / run_name(recipe)))


def create_run(recipe: "Recipe", out: Path | None = None) -> RunFolder:
    """Make the folder of a new run, as planned by `plan_run`. Raises `RunFolderError` if it cannot
    be made."""
    folder = plan_run(recipe, out)
    try:
        try:
            folder.path.mkdir(parents=True, exist_ok=out is not None)
        except FileExistsError:  # another run has just taken the name
            return create_run(recipe, out)
        folder.checkpoint("last").parent.mkdir(exist_ok=True)
        folder.evals.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"cannot make the run folder {folder.path}: {error.strerror}. Choose a folder you "
            "may write to with --out."
        ) from error
    return folder


def is_run(path: Path) -> bool:
    return (path / "recipe.yaml").is_file()


def newest_run(root: Path = RUNS) -> RunFolder:
    """The run under `root` that was begun last. Raises `RunFolderError` when there is none."""
    runs = [path for path in root.iterdir() if is_run(path)] if root.is_dir() else []
    if not runs:
        raise RunFolderError(
            f"there is no run under {root.resolve()} yet. Train one first: rpat train"
        )
    return RunFolder(max(runs, key=lambda path: (path / "recipe.yaml").stat().st_mtime))


def open_run(path: Path) -> RunFolder:
    """An existing run folder. Raises `RunFolderError`, naming near ones, if `path` is none."""
    if is_run(path):
        return RunFolder(path)
    neighbours = (
        [p.name for p in path.parent.iterdir() if is_run(p)] if path.parent.is_dir() else []
    )
    state = "is not a run folder (it has no recipe.yaml)." if path.exists() else "does not exist."
    within = sorted(p.name for p in path.iterdir() if is_run(p)) if path.is_dir() else []
    advice = (
        f"Name one of the runs in it: {', '.join(within)}."
        if within
        else did_you_mean(path.name, neighbours)
    )
    raise RunFolderError(" ".join(filter(None, [f"{path} {state}", advice])))


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears complete or not at all. Raises `RunFolderError`; an old file is
    untouched then."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunFolderError(f"cannot write {path}: {error.strerror}.") from error


def _free(path: Path) -> Path:
    candidate, count = path, 1
    while os.path.lexists(candidate):
        count += 1
        candidate = path.with_name(f"{path.stem}-{count}{path.suffix}")
    return candidate


def environment() -> dict[str, Any]:
    """What a number depends on beside the recipe: versions, and the git commit where there is
    one."""
    import platform

    import torch

    from rpat_cli.version import __version__

    return {
        "rpat": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": _commit(),
    }


@cache
def _commit() -> str | None:
    """Of this folder when first asked: a commit made during a training is not what the training
    runs."""
    import subprocess

    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
