"""Which classes a model sees in image files: what `rpat predict` calls."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rpat_cli.attacks.side_effects import frozen
from rpat_cli.data.base import LoadOptions
from rpat_cli.data.folders import form_of
from rpat_cli.data.images import Form, decode
from rpat_cli.data.splits import unit
from rpat_cli.data.trees import images_below
from rpat_cli.errors import ConfigError, DataError, Problem
from rpat_cli.evaluation.verify import checked_logits
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.records.files import user_path
from rpat_cli.reports.words import class_name

BATCH = 64


@dataclass(frozen=True)
class Guess:
    """A class, by number and name, and the probability that the model gives it."""

    label: int
    name: str
    confidence: float


@dataclass(frozen=True)
class PredictedImage:
    """The most likely classes of one image file, the likeliest first; or why it has none."""

    path: str
    guesses: tuple[Guess, ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins. Without `error` where there was none."""
        found: dict[str, Any] = {"path": self.path, "guesses": [asdict(g) for g in self.guesses]}
        return found | ({"error": self.error} if self.error else {})


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files, and every image below the folders, in order. Raises `ConfigError` with all paths
    at which there is nothing, and `DataError` for a folder that cannot be read."""
    found: list[Path] = []
    problems = []
    for given in paths:
        path = user_path(given)
        if path.is_dir():
            inside = sorted(images_below(path))
            if not inside:
                problems.append(Problem("", "has no image in it.", str(path)))
            found += inside
        elif path.exists():
            found.append(path)
        else:
            problems.append(Problem("", "does not exist.", str(path), "Name image files, folders."))
    if problems:
        raise ConfigError(*problems, title="no image was read" if problems[1:] else "")
    return found


def form_for(saved: SavedModel) -> Form:
    """What the model's images are made into: as its data set's files were, in its own size."""
    section = saved.recipe.data
    channels, height, width = saved.architecture.shape
    options = LoadOptions(
        Path(section.root),
        image_size=(height, width),
        channels=channels,
        center_crop=section.center_crop,
        interpolation=section.interpolation,
    )
    return form_of(options)


def predict_files(
    saved: SavedModel, files: Sequence[Path], device: torch.device | str = "cpu", top: int = 3
) -> Iterator[PredictedImage]:
    """The `top` likeliest classes of each file, one after another; a file that cannot be read is
    one with an error."""
    form = form_for(saved)
    model = saved.model.to(device)
    top = min(top, saved.architecture.classes)
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        yield from _predict_part(model, part, form, saved.class_names, device, top)


def _predict_part(
    model: nn.Module,
    files: Sequence[Path],
    form: Form,
    names: Sequence[str],
    device: torch.device | str,
    top: int,
) -> Iterator[PredictedImage]:
    pixels: dict[Path, Tensor] = {}
    errors: dict[Path, str] = {}
    for path in files:
        try:
            pixels[path] = decode(path, form)
        except DataError as error:
            errors[path] = str(error)
    chances: Iterator[Tensor] = iter(())
    if pixels:
        x = unit(torch.stack(list(pixels.values())).to(device))
        with frozen(model) as fixed:
            chances = iter(checked_logits(fixed, x).softmax(dim=1).cpu())
    for path in files:
        if path in errors:
            yield PredictedImage(str(path), error=errors[path])
            continue
        best = next(chances).topk(top)
        guesses = [
            Guess(label, class_name(names, label), chance)
            for chance, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        yield PredictedImage(str(path), tuple(guesses))
