"""The JSON files in `evals/`, one for each evaluation: all that reads or writes them is here.

A file holds where an evaluation comes from (checkpoint, data, environment) and what it measured.
Diagnostics are added to it later, each under a key of its own. `Evaluation.from_dict(file.record)`
makes the measured part an object again (`parse_evaluation`, with damage reported as it is here):
this module sits below the attacks and does not know them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rpat_cli.errors import RunFolderError
from rpat_cli.records.files import refuse_link, write_whole
from rpat_cli.records.files import write_new as write_new_text
from rpat_cli.records.regular import read_regular

# The key dates from the time when diagnostics were called closer looks. It stays, so that files
# can be exchanged between versions.
PENDING = "closer_looks_left"
ORDER = "order"
THREATS = "threats"
"""The threats, as mappings of norm and eps, that were evaluated by one command, if several."""
EPOCHS_DONE = "epochs_done"
"""How many epochs of the run were done when the evaluation was made."""


@dataclass(frozen=True)
class EvalFile:
    """One evaluation on disk: where it is, and the JSON object that it holds.

    `read` has checked that the keys of the properties below are there.
    """

    path: Path
    record: Mapping[str, Any]

    @property
    def created(self) -> str:
        """When it was written, in ISO 8601."""
        return str(self.record["created"])

    @property
    def age(self) -> tuple[int, datetime, int, str]:
        """Sorts files from the oldest to the newest.

        First by the order in which they were written, since a clock may have been wrong. Files of
        versions that did not record it come first, by the clock; it decides, too, between two that
        were written at the same moment. `created` has whole seconds, so the file system's time
        decides within a second; it comes late because a diagnostic that is added changes it.
        """
        when = datetime.fromisoformat(self.created).astimezone()
        return self.order, when, self.path.stat().st_mtime_ns, self.path.name

    @property
    def order(self) -> int:
        """One more than that of the newest evaluation when it was written; 0 if not recorded."""
        return int(self.record.get(ORDER) or 0)

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint, such as "best"."""
        return str(self.record["checkpoint"])

    @property
    def epoch(self) -> int:
        """The epoch of the checkpoint, from 1; 0 where it is not known."""
        return int(self.record["epoch"])

    @property
    def data(self) -> str:
        """The name of the data set."""
        return str(self.record["data"]["name"])

    @property
    def fingerprint(self) -> str:
        """Of the images and labels: evaluations with equal ones are of the same images."""
        return str(self.record["data"]["fingerprint"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels; empty where they were not recorded."""
        return tuple(self.record["data"].get("class_names", ()))

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions, platform and commit of the evaluation."""
        environment: Mapping[str, Any] = self.record["environment"]
        return environment

    @property
    def device(self) -> str:
        return str(self.record["device"])

    @property
    def key(self) -> str | None:
        """Identifies all that the results depend on; None in files that do not have one."""
        return self.record.get("key")

    @property
    def limit(self) -> int | str | None:
        """How many test images were chosen, or which, in words; None if it was all of them."""
        return self.record.get("limit")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was to be said of the model and its accuracy; empty in files without them."""
        return tuple(map(str, self.record.get("remarks", ())))

    @property
    def pending(self) -> tuple[str, ...]:
        """Keys of the diagnostics that were asked for and are not in the file yet."""
        return tuple(self.record.get(PENDING, ()))

    def has_diagnostic(self, key: str) -> bool:
        """Whether the diagnostic of that key was measured."""
        return key in self.record

    def diagnostic(self, key: str) -> Mapping[str, Any]:
        """What the diagnostic of that key measured, as its `to_dict` wrote it; not checked here.

        Raises `KeyError` if the file does not have it.
        """
        content: Mapping[str, Any] = self.record[key]
        return content


class DamagedEvalError(RunFolderError):
    """A file that is no evaluation, or a damaged one; `problem` says what is wrong with it."""

    def __init__(self, path: Path, problem: str) -> None:
        self.problem = problem = (problem.splitlines() or ["no reason given"])[0]
        super().__init__(f"{path} is not an evaluation, or a damaged one ({problem}).")
        self.remark = f"evals/{path.name} is damaged and was left out ({problem})"


def read(path: Path) -> EvalFile:
    """Read one evaluation.

    Raises `RunFolderError` for a file that is missing or cannot be read, and `DamagedEvalError`,
    which is one, for a file that does not hold an evaluation.
    """
    try:
        record = json.loads(read_regular(path))
    except FileNotFoundError:
        raise RunFolderError(
            f"there is no evaluation {path}. Give a file of evals/, or a run folder."
        ) from None
    except OSError as error:
        raise RunFolderError(f"cannot read the evaluation {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # of the encoding, or of JSON
        raise DamagedEvalError(path, f"it is not JSON: {error}") from None
    if problem := _problem(record):
        raise DamagedEvalError(path, problem)
    return EvalFile(path, record)


def read_all(folder: Path) -> tuple[list[EvalFile], list[str]]:
    """All evaluations in a folder `evals/`, the oldest first, and a remark on each that is damaged.

    A folder that does not exist holds none.
    """
    files, remarks = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            files.append(read(path))
        except DamagedEvalError as error:
            remarks.append(error.remark)
        except RunFolderError as error:
            remarks.append(str(error))
    return sorted(files, key=lambda file: file.age), remarks


def newest(folder: Path) -> EvalFile | None:
    """The evaluation in a folder `evals/` that was made last; None if none can be read."""
    files, _ = read_all(folder)
    return files[-1] if files else None


def next_order(folder: Path) -> int:
    """The `order` of an evaluation that is written now: see `EvalFile.age`."""
    before = newest(folder)
    return 1 + (before.order if before else 0)


def write_new(folder: Path, stem: str, record: Mapping[str, Any]) -> EvalFile:
    """Write an evaluation to `STEM.json` in a folder `evals/`, or to `STEM-2.json` if it is taken.

    Evaluations that end in the same second all keep their results. Raises `RunFolderError` if the
    file cannot be written; no part of it is left then.
    """
    refuse_link(folder)
    return EvalFile(write_new_text(folder / f"{stem}.json", _text(record)), dict(record))


def add(path: Path, results: Mapping[str, Mapping[str, Any]], pending: Sequence[str]) -> EvalFile:
    """Add the results of diagnostics, by key, to an evaluation; `pending` are those still to come.

    Raises `RunFolderError` if the file cannot be read or written; it is untouched then.
    """
    refuse_link(path.parent)
    record = {**read(path).record, **results}
    record.pop(PENDING, None)
    if pending:
        record[PENDING] = list(pending)
    write_whole(path, _text(record))
    return EvalFile(path, record)


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1)


def _problem(record: Any) -> str:
    """What is wrong with the contents of a file; empty if it is an evaluation."""
    if not isinstance(record, dict):
        return "it is not a JSON object"
    kinds: dict[str, type] = {
        "created": str,
        "checkpoint": str,
        "epoch": int,
        "environment": dict,
        "device": str,
        "data": dict,
        "results": list,
    }
    for key, kind in kinds.items():
        if not isinstance(record.get(key), kind):
            return f"{key} is missing or not of type {kind.__name__}"
    for key in ("name", "fingerprint"):
        if not isinstance(record["data"].get(key), str):
            return f"data.{key} is missing or not of type str"
    for key, value in {
        "data.class_names": record["data"].get("class_names", []),
        PENDING: record.get(PENDING, []),
    }.items():
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return f"{key} is not a list of texts"
    if not _is_count(record.get(ORDER)):
        return f"{ORDER} is not a count"
    if not isinstance(record.get("limit"), str) and not _is_count(record.get("limit")):
        return "limit is not a count, and says no images in words"
    try:
        datetime.fromisoformat(record["created"]).astimezone()
    except (ValueError, OverflowError, OSError):  # no date, or one that no clock here can show
        return f"created is not a date: {record['created']!r}"
    return ""


def _is_count(value: Any) -> bool:
    """Whether it is one, or is not recorded."""
    return value is None or (isinstance(value, int) and 0 <= value < 2**63)
