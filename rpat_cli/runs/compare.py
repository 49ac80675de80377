"""Two evaluations from disk, compared: what `rpat compare` calls."""

import json
from pathlib import Path
from typing import Any

from rpat_cli.errors import DataError, RunFolderError
from rpat_cli.evaluation.compare import Comparison, compare
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.records.run_folder import RunFolder, open_run


def compare_files(a: Path, b: Path) -> list[Comparison]:
    """Compare two evaluations: their JSON files, or folders of runs, which stand for their newest
    evaluation.

    Raises `RunFolderError` for what is missing or no evaluation, `DataError` when they are not of
    the same images.
    """
    first, second = _read(a), _read(b)
    if first["data"]["fingerprint"] != second["data"]["fingerprint"]:
        names = " and ".join(record["data"]["name"] for record in (first, second))
        raise DataError(
            f"the two evaluations are of other test images ({names}); compare those of one test "
            "set."
        )
    return compare(Evaluation.from_dict(first), Evaluation.from_dict(second))


def evaluation_file(path: Path) -> Path:
    """An evaluation's file, or the newest one of a folder."""
    if not path.is_dir():
        return path
    files = evaluations_in(path)
    if not files:
        raise RunFolderError(f"{path} has not been evaluated yet: rpat eval {path}")
    return files[0]


def evaluations_in(path: Path) -> list[Path]:
    """The evaluations of a run, or of a model that rpat has not trained (`runs/external/NAME`),
    newest first.

    Raises `RunFolderError` for any other folder.
    """
    folder = RunFolder(path)
    evals = folder.evals if folder.evals.is_dir() else open_run(path).evals
    return sorted(
        evals.glob("*.json"), key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True
    )


def _read(path: Path) -> dict[str, Any]:
    file = evaluation_file(path)
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        record["results"], record["data"]["fingerprint"]
    except FileNotFoundError:
        raise RunFolderError(
            f"there is no evaluation {file}. Give a file of evals/, or a run folder."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(
            f"{file} is not an evaluation. Give a file of evals/, or a run folder."
        ) from None
    return record
