"""The bodies of `rpat predict`, `rpat export` and `rpat push`. Imported when one runs, since they
need torch."""

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from rpat_cli.cli import console
from rpat_cli.data.base import Split
from rpat_cli.engine.compute import resolve_compute
from rpat_cli.errors import ConfigError, DataError, Problem
from rpat_cli.export.push import push_model
from rpat_cli.export.write import export_model
from rpat_cli.loading.load import load_model
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.models.hub_name import HubName
from rpat_cli.recipe.layers import Layer
from rpat_cli.reports.terminal import remarks_text
from rpat_cli.runs.predict import PredictedImage, image_files, predict_files
from rpat_cli.runs.target import open_target
from rpat_cli.text import percent
from rpat_cli.user_code import speaking_on_stderr


def predict(
    target: Path,
    changes: Sequence[Layer],
    images: Sequence[Path],
    *,
    checkpoint: str,
    device: str | None,
    top: int,
    as_json: bool,
) -> None:
    """`rpat predict`: a line for each image as soon as it is known."""
    files = image_files(images)
    with speaking_on_stderr():
        saved = load_model(target, checkpoint, changes)
        place = resolve_compute(device or saved.recipe.device, "fp32").device
    found = []
    for each in predict_files(saved, files, place, top):
        found.append(each)
        if not as_json:
            _show(each)
    if as_json:
        print(json.dumps([each.to_dict() for each in found]))
    if any(each.error for each in found):
        raise typer.Exit(1)


def export(
    target: Path,
    changes: Sequence[Layer],
    formats: Sequence[str],
    *,
    checkpoint: str,
    out: Path | None,
    check: str,
    as_json: bool,
) -> None:
    """`rpat export`: checked on test images where they are there."""
    most = _count(check)
    with speaking_on_stderr():
        saved, images, remark = _with_images(target, checkpoint, changes)
        exported = export_model(saved, formats, out, images=images, check=most)
    if remark:
        exported.remarks.append(remark)
    if as_json:
        print(json.dumps(exported.to_dict()))
        return
    for name, path in exported.files.items():
        checked = exported.checks.get(name)
        line = f"{name}: {path}" + (f" ({checked.text})" if checked else "")
        console.out.print(line, markup=False, soft_wrap=True)
    console.out.print(remarks_text(exported.remarks))


def push(
    target: Path,
    changes: Sequence[Layer],
    name: HubName,
    *,
    checkpoint: str,
    private: bool,
    replace: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """`rpat push`."""
    with speaking_on_stderr():
        saved = load_model(target, checkpoint, changes)
        pushed = push_model(saved, name, private=private, replace=replace, dry_run=dry_run)
    if as_json:
        print(json.dumps(pushed.to_dict()))
        return
    console.out.print(str(pushed), markup=False, soft_wrap=True)
    console.out.print(remarks_text(pushed.remarks))


def _count(check: str) -> int | None:
    if check == "all":
        return None
    if not check.isdecimal() or not 1 <= len(check) < 10 or int(check) < 1:
        message = f"{check!r}: must be 'all' or a number of images, at least 1."
        raise ConfigError(Problem("", message, "--check"))
    return int(check)


def _with_images(
    target: Path, checkpoint: str, changes: Sequence[Layer]
) -> tuple[SavedModel, Split | None, str]:
    """The model and its test images, or a remark that says why there are none."""
    try:
        opened = open_target(target, checkpoint, changes)
    except DataError as error:
        saved = load_model(target, checkpoint, changes)
        return saved, None, f"checked on random images only: {error}"
    return opened.saved, opened.data.test, ""


def _show(predicted: PredictedImage) -> None:
    if predicted.error:
        console.error(predicted.error)
        return
    guesses = [f"{guess.name} {percent(guess.confidence, 1)} %" for guess in predicted.guesses]
    line = f"{predicted.path}: {guesses[0]}"
    if guesses[1:]:
        line += f" ({', '.join(guesses[1:])})"
    console.out.print(line, markup=False, soft_wrap=True)
