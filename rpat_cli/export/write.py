"""`rpat export`: write a model in several formats, check each, and describe it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rpat_cli.data.base import Split
from rpat_cli.errors import ConfigError, Problem, RpatError, RunFolderError, unknown
from rpat_cli.export.card import MARK, model_card, rows_of
from rpat_cli.export.check import Checked, compare
from rpat_cli.export.formats import FORMATS, Model
from rpat_cli.export.robustbench import missing, model_info, snippet
from rpat_cli.loading.saved_model import SavedModel, run_of
from rpat_cli.records.files import user_path, write_whole
from rpat_cli.records.regular import read_regular
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.report import Report

CARD = "README.md"
ROBUSTBENCH = "robustbench"
PROGRAM = "torch-export"
"""The format that RobustBench loads without rpat."""

INFO, SNIPPET = "model_info.json", "robustbench_eval.py"

NAMES = (*FORMATS, ROBUSTBENCH)
DEFAULT = ("state-dict", PROGRAM)  # what an installation without extras can write


@dataclass
class Exported:
    """What was written: the file of each format, and what the check of it found."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    checks: dict[str, Checked] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {
            "folder": str(self.folder),
            "files": {name: str(path) for name, path in self.files.items()},
            "checks": {name: check.to_dict() for name, check in self.checks.items()},
            "remarks": self.remarks,
        }


def export_folder(saved: SavedModel) -> Path:
    """`exports/RUN-CHECKPOINT`"""
    run = run_of(saved.file)
    name = f"{run.path.resolve().name}-{saved.file.stem}" if run else saved.file.stem
    return Path("exports") / name


def export_model(
    saved: SavedModel,
    formats: Sequence[str] = DEFAULT,
    out: Path | None = None,
    *,
    images: Split | None = None,
    check: int | None = None,
) -> Exported:
    """Write the model to the folder `out`, in each of the formats, with a card.

    Every file is read back, and compared with the model on the first `check` of the `images` (all
    if None), or on random ones if there are none. Raises `ConfigError` for unknown formats and for
    files that exist already, `MissingExtraError`, and `RpatError` for a model that a format cannot
    hold, or that does not predict the same: no file of it is left then.
    """
    folder = user_path(out) if out is not None else export_folder(saved)
    chosen = _chosen(formats)
    _check_free(folder, chosen)
    exported = Exported(folder, remarks=list(saved.remarks))
    model = Model(saved.model.to("cpu").eval(), saved.architecture)
    report = report_of(saved)
    if ROBUSTBENCH in chosen:
        _check_figures(saved, report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot make {folder}: {error.strerror}.") from error
    try:
        for name in chosen:
            if name in FORMATS:
                _write(model, name, images, check, exported)
    except BaseException:
        for path in exported.files.values():  # the same command can then be given again
            path.unlink(missing_ok=True)
        raise
    if report is not None and ROBUSTBENCH in chosen:
        _write_robustbench(saved, report, exported)
    named = {name: path.name for name, path in exported.files.items()}
    write_whole(folder / CARD, model_card(saved, report, saved.file.stem, named))
    exported.files["card"] = folder / CARD
    return exported


def _chosen(formats: Sequence[str]) -> list[str]:
    problems = [
        Problem("", unknown("format", name, NAMES), "--format")
        for name in formats
        if name not in NAMES
    ]
    if problems:
        raise ConfigError(*problems, title="unknown formats" if problems[1:] else "")
    names = [*formats, PROGRAM] if ROBUSTBENCH in formats else formats
    return list(dict.fromkeys(names))


def _check_free(folder: Path, chosen: Sequence[str]) -> None:
    """Nothing is overwritten but a card of ours."""
    wanted = [FORMATS[name].file for name in chosen if name in FORMATS]
    wanted += [INFO, SNIPPET] if ROBUSTBENCH in chosen else []
    taken = [name for name in wanted if (folder / name).exists()]
    card = folder / CARD
    if card.exists() and MARK not in read_regular(card).decode(errors="replace"):
        taken.append(CARD)
    if taken:
        hint = "Choose another folder with --out; nothing is overwritten."
        problems = [Problem("", "exists already.", str(folder / name), hint) for name in taken]
        raise ConfigError(*problems, title="nothing was exported" if problems[1:] else "")


def _write(
    model: Model, name: str, images: Split | None, check: int | None, exported: Exported
) -> None:
    """Under its name only once it is known to be right."""
    form = FORMATS[name]
    path = exported.folder / form.file
    unchecked = path.with_name(f"unchecked-{form.file}")
    try:
        form.write(model, unchecked)
        checked = compare(model, form.read(model, unchecked), images, check)
        if not checked.within:
            raise RpatError(f"{name}: the exported model is another one: {checked.text}.")
        unchecked.replace(path)
    except RpatError:
        raise
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}.") from error
    except Exception as error:  # exporters raise what they like for what they cannot hold
        reason = " ".join(str(error).split())[:300]
        raise RpatError(
            f"{name}: this network cannot be exported: {type(error).__name__}: {reason}. Choose "
            "another --format: safetensors and state-dict hold the weights of any network."
        ) from error
    finally:
        unchecked.unlink(missing_ok=True)
    exported.files[name] = path
    exported.checks[name] = checked


def report_of(saved: SavedModel) -> Report | None:
    """Of a model that rpat has trained; None for others."""
    run = run_of(saved.file)
    return None if run is None else build_report(run)


def _check_figures(saved: SavedModel, report: Report | None) -> None:
    if report is None or not rows_of(report, saved.file.stem):
        raise RpatError(
            "robustbench: this model has not been evaluated as a run of rpat, so there are no "
            "figures to hand on. Evaluate it first: rpat eval --attack autoattack"
        )


def _write_robustbench(saved: SavedModel, report: Report, exported: Exported) -> None:
    row = rows_of(report, saved.file.stem)[0]
    info = model_info(report, row, saved.architecture.name)
    program = exported.files[PROGRAM].name
    texts: Mapping[str, str] = {
        INFO: json.dumps(info, indent=2) + "\n",
        SNIPPET: snippet(info, row.threat.norm, program),
    }
    for name, text in texts.items():
        write_whole(exported.folder / name, text)
    exported.files[ROBUSTBENCH] = exported.folder / INFO
    exported.files["snippet"] = exported.folder / SNIPPET
    exported.remarks += [f"robustbench: {each}" for each in missing(info)]
