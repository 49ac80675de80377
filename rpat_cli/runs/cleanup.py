"""Removing checkpoints of runs, or whole runs: what `rpat runs rm` does.

Only files that rpat itself writes, in folders that are runs, are ever removed. Links are never
followed.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rpat_cli.errors import ConfigError, Problem, RunFolderError
from rpat_cli.records.metrics import AVERAGED
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.runs.listing import STOPPED, TRAINING, summarize

CHECKPOINTS = tuple(f"{name}{suffix}" for name in ("best", "last") for suffix in ("", AVERAGED))

OWN_FILES = ("recipe.yaml", "metrics.jsonl", "log.txt", "report.json", "report.html", ".launchers")
"""In the folder of a run."""

OWN_FOLDERS = {
    "checkpoints": ("*.pt",),
    "evals/partial": ("*.jsonl", "*.npz", "*.adv"),
    "evals": ("*.json", "*.npz"),
    "plugins": ("*.py", "*/*.py"),
}
"""Within it, and the files in them that rpat writes."""


@dataclass(frozen=True)
class Removal:
    """What is to be removed of one run. `whole`: the run itself; then `left` are the files in its
    folder that rpat has not written, which stay."""

    folder: RunFolder
    files: tuple[Path, ...]
    whole: bool = False
    left: tuple[Path, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(path.lstat().st_size for path in self.files)


def plan_removal(
    folders: Sequence[RunFolder], keep: Sequence[str] = ("best", f"best{AVERAGED}")
) -> list[Removal]:
    """The checkpoints of the runs other than those to `keep`, with the earlier copies of them.

    Raises `ConfigError` with every mistake: a run that is being trained, one that is not finished
    and needs its last checkpoint to go on, a checkpoint that no run has.
    """
    problems = [
        Problem("", f"unknown checkpoint {name!r}.", "--keep", f"Allowed: {', '.join(CHECKPOINTS)}")
        for name in keep
        if name not in CHECKPOINTS
    ]
    for folder in folders:
        summary = summarize(folder)
        planned = summary.epochs_planned
        if summary.state == TRAINING:
            problems.append(_in_use(folder))
        elif "last" not in keep and (planned is None or summary.state == STOPPED):
            done = (
                f"is not finished ({summary.epochs} of {planned} epochs)"
                if planned is not None
                else "may not be finished (its recipe cannot be read)"
            )
            message = f"{done}, and resuming it takes its last checkpoint."
            hint = "Finish it with rpat train --resume, keep it with --keep best,last, or remove "
            problems.append(Problem("", message, str(folder.path), f"{hint}the run with --whole."))
    if problems:
        raise _mistakes(problems)
    removals = [_of_checkpoints(folder, keep) for folder in folders]
    return [removal for removal in removals if removal.files]


def plan_whole_removal(folders: Sequence[RunFolder]) -> list[Removal]:
    """The runs themselves, with all that rpat has written there. Raises `ConfigError` for runs that
    are being trained."""
    problems = [_in_use(folder) for folder in folders if folder.is_training]
    if problems:
        raise _mistakes(problems)
    removals = []
    for folder in folders:
        files = tuple(_written(folder))
        every = [Path(path) / name for path, _, names in os.walk(folder.path) for name in names]
        left = tuple(sorted(set(every) - set(files)))
        removals.append(Removal(folder, files, whole=True, left=left))
    return removals


def _mistakes(problems: Sequence[Problem]) -> ConfigError:
    return ConfigError(*problems, title="nothing was removed" if problems[1:] else "")


def _in_use(folder: RunFolder) -> Problem:
    message = "is being trained by another process."
    return Problem("", message, str(folder.path), "Wait for it, or stop it first.")


def _of_checkpoints(folder: RunFolder, keep: Sequence[str]) -> Removal:
    names = [name for name in CHECKPOINTS if name not in keep]
    paths = [folder.checkpoint(f"{name}{prev}") for name in names for prev in ("", ".prev")]
    paths += [folder.checkpoint(f"{name}.prev") for name in keep]
    if folder.checkpoint("last").parent.is_symlink():
        paths = []
    return Removal(folder, tuple(path for path in paths if _is_file(path)))


def _is_file(path: Path) -> bool:
    """A file, or a link, which is removed itself."""
    return path.is_symlink() or path.is_file()


def _written(folder: RunFolder) -> Iterator[Path]:
    for name in OWN_FILES:
        if _is_file(folder.path / name):
            yield folder.path / name
    for name, patterns in OWN_FOLDERS.items():
        inside = folder.path / name
        if inside.is_symlink() or inside.parent.is_symlink():
            continue
        for pattern in patterns:
            yield from (path for path in sorted(inside.glob(pattern)) if _is_file(path))


def remove(removals: Sequence[Removal]) -> None:
    """Remove the files, and the folders that are empty then.

    The recipe, which makes a folder a run, goes last: whatever interrupts this, the rest can still
    be named. Raises `RunFolderError` for what cannot be removed.
    """
    for removal in removals:
        recipe = removal.folder.recipe
        for path in sorted(removal.files, key=lambda path: path == recipe):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise RunFolderError(f"cannot remove {path}: {error.strerror}.") from error
        if removal.whole:
            numbered = sorted((removal.folder.path / "plugins").glob("*"))
            own = [removal.folder.path / name for name in OWN_FOLDERS]
            for path in (*numbered, *own, removal.folder.path):
                with suppress(OSError):  # not empty, no folder, or not there
                    path.rmdir()
