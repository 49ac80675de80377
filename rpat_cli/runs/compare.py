"""Two evaluations from disk, compared: what `rpat compare` calls."""

from pathlib import Path

from rpat_cli.errors import DataError, RunFolderError
from rpat_cli.evaluation.compare import Comparison, compare
from rpat_cli.evaluation.results import parse_evaluation
from rpat_cli.records import eval_file
from rpat_cli.records.eval_file import EvalFile
from rpat_cli.records.run_folder import RunFolder, open_run


def compare_files(a: Path, b: Path) -> list[Comparison]:
    """Compare two evaluations: their JSON files, or folders of runs with their newest one.

    Raises `RunFolderError` for a file that is missing or no evaluation, `DataError` when they are
    not of the same images.
    """
    first, second = open_evaluation(a), open_evaluation(b)
    if first.fingerprint != second.fingerprint:
        raise DataError(
            f"the two evaluations are of different test images ({first.data} and {second.data}). "
            "Compare evaluations of the same test set."
        )
    return compare(parse_evaluation(first), parse_evaluation(second))


def open_evaluation(path: Path) -> EvalFile:
    """An evaluation's file, or the newest one of a folder. Raises `RunFolderError` if there is
    none."""
    if not path.is_dir():
        return eval_file.read(path)
    newest = eval_file.newest(evals_of(path))
    if newest is None:
        raise RunFolderError(f"{path} has not been evaluated yet. Evaluate it: rpat eval {path}")
    return newest


def evals_of(path: Path) -> Path:
    """The folder with the evaluations of a run, or of a model that rpat has not trained
    (`runs/external/NAME`). Raises `RunFolderError` for any other folder."""
    folder = RunFolder(path)
    return folder.evals if folder.evals.is_dir() else open_run(path).evals


def evaluation_file(path: Path) -> Path:
    """The path of an evaluation, or of the newest one of a folder."""
    return open_evaluation(path).path
