"""The folder of one run: where everything in it lies, and how a run is found."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rpat_cli.errors import RunFolderError, did_you_mean
from rpat_cli.records.files import appending, remove_leftovers
from rpat_cli.records.lock import locked
from rpat_cli.records.regular import open_regular, read_regular

RUNS = Path("runs")


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are, which need not exist:

    recipe.yaml  metrics.jsonl  log.txt  report.json  report.html
    checkpoints/{last,best}[_wa].pt  evals/*.json  tracking/TRACKER/
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

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

    @property
    def tracking(self) -> Path:
        """What trackers write on this machine, each in a folder of its own."""
        return self.path / "tracking"

    @property
    def launchers(self) -> Path:
        """Of a training by several processes that is under way: which processes start them."""
        return self.path / ".launchers"

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.pt"

    @property
    def is_training(self) -> bool:
        """Whether a process is training here now. It is asked for by taking its lock for a moment:
        a log that cannot be read is nobody's."""
        try:
            with open_regular(self.log) as log:
                return not locked(log)
        except OSError:
            return False

    @contextmanager
    def training(self) -> Iterator[None]:
        """Keeps other processes from training here. Raises `RunFolderError` if one does already."""
        with appending(self.log) as log:
            if not locked(log):
                raise RunFolderError(
                    f"another process is training {self.path}. Wait for it, or stop it first."
                )
            for folder in (self.path, self.checkpoint("last").parent, self.evals):
                remove_leftovers(folder)
            yield


def is_run(path: Path) -> bool:
    """Whether a folder is the folder of a run: it holds a recipe."""
    return (path / "recipe.yaml").is_file()


def newest_run(root: Path = RUNS) -> RunFolder:
    """The run under `root` that was begun last. Raises `RunFolderError` when there is none."""
    runs = [root / name for name in _runs_in(root)]
    if not runs:
        raise RunFolderError(
            f"there is no run under {root.resolve()} yet. Train one first with rpat train."
        )
    return RunFolder(max(runs, key=begun))


def begun(run: Path) -> tuple[float, int, str]:
    """Sorts runs by when they began.

    By the first line of the log, since copying a run may change the times of its files; where that
    tells nothing, by the time of the recipe, which is written when a run begins.
    """
    written = (run / "recipe.yaml").stat().st_mtime_ns
    try:
        began = datetime.fromisoformat(read_regular(run / "log.txt", 19).decode()).timestamp()
    except (OSError, ValueError, OverflowError):
        began = written / 1e9
    return began, written, run.name


def open_run(path: Path) -> RunFolder:
    """An existing run folder. Raises `RunFolderError`, naming near ones, if `path` is none."""
    if is_run(path):
        return RunFolder(path)
    state = "is not a run folder (it has no recipe.yaml)." if path.exists() else "does not exist."
    if within := _runs_in(path):
        advice = f"Name one of the runs in it: {', '.join(within)}."
    else:
        advice = did_you_mean(path.name, _runs_in(path.parent))
    raise RunFolderError(f"{path} {state} {advice}".rstrip())


def _runs_in(folder: Path) -> list[str]:
    """The names of the runs in a folder, in order; none if it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if is_run(path))
