"""The runs in a folder, each in one line: what `rpat runs` shows.

Nothing here imports torch, and nothing that a run names is executed: recipes are read as plain
values, accuracies from report.json.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rpat_cli.errors import RpatError, RunFolderError
from rpat_cli.recipe.layers import read_yaml
from rpat_cli.recipe.schema import switches
from rpat_cli.records.files import user_path
from rpat_cli.records.metrics import best_record, read_metrics
from rpat_cli.records.run_folder import RUNS, RunFolder, begun, is_run
from rpat_cli.reports.saved_report import AUTOATTACK, DAMAGE, Results, accuracies, read_saved_report

MAX_DEPTH = 4
"""Folders below the one that is listed: sweeps/NAME/trials/HASH/run."""

TRAINING, STOPPED, TRAINED, EVALUATED = "training", "stopped", "trained", "evaluated"
"""How far a run is: a process trains it; it can be resumed; all epochs are done; and measured."""


@dataclass(frozen=True)
class RunSummary:
    """One run. Accuracies are fractions, None where they were not measured; epochs count from 1.

    `clean_acc`, `robust_acc` are those of `checkpoint` on the test set under the recipe's threat;
    `attack` is the one that left `robust_acc`, the least. `val_robust_acc` is that of `best_epoch`
    on validation images. `method` includes what is added to it: "trades+ra". `began` is in ISO
    8601, `bytes` the size of all files. `recipe` are the plain values of recipe.yaml, `results` all
    accuracies, by checkpoint and attack. `remarks` say what could not be read.
    """

    path: str
    began: str
    state: str
    data: str = ""
    model: str = ""
    method: str = ""
    norm: str = ""
    eps: float | None = None
    seed: int | None = None
    epochs: int = 0
    epochs_planned: int | None = None
    best_epoch: int | None = None
    val_robust_acc: float | None = None
    checkpoint: str = ""
    clean_acc: float | None = None
    robust_acc: float | None = None
    attack: str = ""
    evaluations: int = 0
    bytes: int = 0
    remarks: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)
    results: Results = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return Path(self.path).name

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {"name": self.name, **asdict(self), "remarks": list(self.remarks)}


def list_runs(root: str | Path = RUNS) -> list[RunSummary]:
    """The runs in a folder and in those below it, such as the trials of a sweep, in the order in
    which they began. An empty list if there is no such folder.

    Raises `RunFolderError` for a folder that cannot be read, and `ConfigError` for what can be no
    path. A damaged run is listed with a remark.
    """
    root = user_path(root)
    try:
        paths = sorted(_runs_below(root, MAX_DEPTH), key=begun)
    except OSError as error:
        raise RunFolderError(f"cannot read {error.filename or root}: {error.strerror}.") from error
    return [summarize(RunFolder(path)) for path in paths]


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    """Links to folders are not followed: they may lead in a circle."""
    if not folder.is_dir():
        return
    # The folder of a sweep's trial holds the recipe that the run in it was started with.
    if is_run(folder) and not is_run(folder / "run"):
        yield folder
        return
    if depth:
        inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
        for path in inside:
            if not path.is_symlink() or is_run(path):
                yield from _runs_below(path, 0 if path.is_symlink() else depth - 1)


def summarize(folder: RunFolder) -> RunSummary:
    """One run in one line. What cannot be read is left out, and remarked."""
    remarks: list[str] = []
    recipe = _recipe(folder, remarks)
    records = _records(folder, remarks)
    results, reported = _results(folder, remarks)
    best = best_record(records)
    done = max([reported, *(record["epoch"] for record in records)])
    planned = _number(recipe.get("epochs"))
    checkpoint = next((name for name in ("best", "last") if name in results), "")
    checkpoint = checkpoint or next(iter(results), "")
    measured = dict(results.get(checkpoint, {}))
    clean = measured.pop("clean", None)
    attack = min(measured, key=lambda label: (measured[label], label != AUTOATTACK), default="")
    threat = _section(recipe, "threat")
    return RunSummary(
        path=str(folder.path),
        began=datetime.fromtimestamp(begun(folder.path)[0]).isoformat(timespec="seconds"),
        state=_state(folder, done, planned, bool(results)),
        data=str(_section(recipe, "data").get("name", "")),
        model=str(recipe.get("model", "")),
        method=method_of(recipe),
        norm=str(threat.get("norm", "")),
        eps=_fraction(threat.get("eps")),
        seed=_number(recipe.get("seed")),
        epochs=done,
        epochs_planned=planned,
        best_epoch=None if best is None else best["epoch"],
        val_robust_acc=None if best is None else best["validation"]["robust_acc"],
        checkpoint=checkpoint,
        clean_acc=clean,
        robust_acc=measured.get(attack),
        attack=attack,
        evaluations=len(list(folder.evals.glob("*.json"))),
        bytes=size_of(folder.path),
        remarks=tuple(remarks),
        recipe=recipe,
        results=results,
    )


def _state(folder: RunFolder, done: int, planned: int | None, measured: bool) -> str:
    if folder.is_training:
        return TRAINING
    if planned is not None and done < planned:
        return STOPPED
    return EVALUATED if measured else TRAINED


def _recipe(folder: RunFolder, remarks: list[str]) -> dict[str, Any]:
    try:
        return read_yaml(folder.recipe).values
    except RpatError as error:
        remarks.append(f"recipe.yaml cannot be read: {error}")
        return {}


def _records(folder: RunFolder, remarks: list[str]) -> list[dict[str, Any]]:
    try:
        return read_metrics(folder.metrics)
    except RunFolderError as error:
        remarks.append(str(error))
        return []


def _results(folder: RunFolder, remarks: list[str]) -> tuple[Results, int]:
    """All accuracies by checkpoint, and how many epochs were done; nothing without a report."""
    if not folder.report.exists():
        return {}, 0
    try:
        report = read_saved_report(folder)
        found = accuracies(report)
        by_name = {str(name): _fractions(each) for name, each in found.items()}
        return by_name, int(report["training"]["epochs"])
    except DAMAGE:
        path = folder.path
        remarks.append(f"report.json cannot be read; write it again with: rpat report {path}")
        return {}, 0


def _fractions(values: Mapping[str, Any]) -> dict[str, float]:
    """Raises `ValueError` for what is no accuracy."""
    found = {str(label): float(value) for label, value in values.items()}
    if not all(0 <= value <= 1 for value in found.values()):
        raise ValueError("an accuracy is not in [0, 1]")
    return found


def method_of(recipe: Mapping[str, Any]) -> str:
    """`trades+ra+wa`, of the plain values of a recipe."""
    added = [name for name in switches() if recipe.get(name) not in (None, False)]
    mix = _section(recipe, "mix").get("name")
    parts = [_section(recipe, "method").get("name", ""), *added, *([mix] if mix else [])]
    return "+".join(map(str, parts))


def _section(recipe: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = recipe.get(key)
    if isinstance(section, str):  # a section may be written as a bare name
        return {"name": section}
    return section if isinstance(section, Mapping) else {}


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _fraction(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder; links are not followed."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(path) / name).st_size
            except OSError:  # gone in the meantime
                continue
    return total
