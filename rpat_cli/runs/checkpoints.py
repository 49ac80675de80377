"""What a training writes to `checkpoints/`, and when.

    last, last_wa   after each epoch and at an early stop: the trained model, and its average
    best, best_wa   after a validation that is the best so far

Every checkpoint holds a model with all that is needed to build it; `last` also holds the state of
the training, of which the average is a part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rpat_cli.engine.callbacks import Checkpoints, Validation
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.evaluation.words import absolute_source, with_sources
from rpat_cli.loading.architecture import Architecture
from rpat_cli.recipe.plugins import kept_plugins
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.records.files import user_path
from rpat_cli.records.metrics import AVERAGED, EpochRecord
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.records.segments import Segment
from rpat_cli.runs.environment import environment


@dataclass(frozen=True)
class CheckpointWriter:
    """Writes the checkpoints of one run. `images` are the fingerprints of those trained on, `start`
    is the record of the weights that it began with, if these were not random."""

    recipe: Recipe
    architecture: Architecture
    class_names: Sequence[str]
    images: Mapping[str, str]
    folder: RunFolder
    segments: Sequence[Segment]
    start: Mapping[str, Any] | None = None

    def callbacks(self, validation: Validation) -> list[Checkpoints]:
        """The callbacks that save `last_wa`, with weight averaging, and then `last`.

        In this order: whoever is killed between the two resumes from the `last` before, and makes
        both anew. The other way round, an average of the epoch before would stay for ever.
        """

        def last(loop: TrainLoop) -> dict[str, Any]:
            training = loop.state_dict()
            model = training.pop("model")
            return {
                **self._content(model),
                "epoch": loop.epoch,
                "validation": validation.of_now(loop),
                "best": validation.best,
                "segments": [segment.to_dict() for segment in self.segments],
                "training": training,
            }

        def last_averaged(loop: TrainLoop) -> dict[str, Any]:
            assert loop.averaging is not None
            content = self._content(loop.averaging.model.state_dict())
            return {**content, "epoch": loop.epoch, "validation": validation.of_now(loop)}

        savers = []
        if self.recipe.wa:
            path = self.folder.checkpoint(f"last{AVERAGED}")
            # A resumed run begins with it: the file may be lost, or older than `last`.
            savers.append(Checkpoints(path, last_averaged, at_start=True))
        return [*savers, Checkpoints(self.folder.checkpoint("last"), last)]

    def save_best(self, suffix: str, model: nn.Module, record: EpochRecord) -> None:
        """Save `best` or, with the suffix of the averaged model, `best_wa`."""
        content = self._content(model.state_dict())
        save_checkpoint(
            self.folder.checkpoint(f"best{suffix}"),
            {**content, "epoch": record.epoch, "validation": record.validation},
        )

    def _content(self, weights: dict[str, Any]) -> dict[str, Any]:
        return {
            "recipe": saved_form(self.recipe, self.folder).model_dump(mode="json"),
            "architecture": self.architecture.to_dict(),
            "class_names": list(self.class_names),
            "images": dict(self.images),
            "environment": {**environment(), "precision": self.segments[-1].precision},
            **({"start": dict(self.start)} if self.start else {}),
            "model": weights,
        }


def saved_form(recipe: Recipe, folder: RunFolder) -> Recipe:
    """A recipe as it is saved in a run folder, so that it means the same from everywhere: its
    plugins are copied into the folder, other files are named by their absolute paths.

    Raises `RunFolderError` if a plugin cannot be copied.
    """
    extra = recipe.data.extra
    if extra.paths:
        paths = [str(user_path(path).resolve()) for path in extra.paths]
        extra = extra.model_copy(update={"path": paths if paths[1:] else paths[0]})
    root = Path(recipe.data.root)
    # A folder that is not there holds none of the images: those of fashion-mini come with rpat.
    place = str(root.resolve()) if root.is_dir() else recipe.data.root
    data = recipe.data.model_copy(update={"root": place, "extra": extra})
    attacks = [with_sources(entry) for entry in recipe.eval]
    plugins = kept_plugins(recipe, folder.path)
    init = recipe.init and absolute_source(recipe.init)
    changed = {"data": data, "eval": attacks, "plugins": plugins, "init": init}
    return recipe.model_copy(update=changed)
