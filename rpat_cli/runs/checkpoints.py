"""What a training writes to `checkpoints/`, and when.

    last, last_wa   after each epoch and at an early stop: the trained model, and its average
    best, best_wa   after a validation that is the best so far

Every checkpoint holds a model with all that is needed to build it; `last` also holds the state of
the training, of which the average is a part.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rpat_cli.engine.callback import Callback
from rpat_cli.engine.callbacks import Checkpoints, Validation
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.evaluation.words import absolute_source, with_sources
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.origins import LEARNED_FROM, START, origins_in_words
from rpat_cli.loading.start import Start
from rpat_cli.loading.start_name import frozen_in
from rpat_cli.recipe.plugins import kept_plugins
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.records.files import user_path
from rpat_cli.records.metrics import AVERAGED, EpochRecord
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.records.segments import Segment
from rpat_cli.runs.environment import environment


class Origins(Callback):
    """What the checkpoints of a run keep of the files that its weights are from, under the keys of
    `rpat_cli.loading.origins`; said as the run begins.

    `start` are the weights that it begins with, if these are not random; `state` is the content of
    the checkpoint that it resumes from. A resumed run keeps what that says: it goes on with the
    networks in the checkpoint, whatever their files have become.
    """

    def __init__(
        self, start: Start | None, state: Mapping[str, Any] | None, say: Callable[[str], None]
    ) -> None:
        self.say = say
        self.begins = state is None
        self.record = {key: state[key] for key in (START, LEARNED_FROM) if state and key in state}
        if start is not None:
            self.record[START] = start.record()

    def on_start(self, loop: TrainLoop) -> None:
        now = {name: dict(tell()) for name, tell in loop.networks.origins.items()}
        if self.begins:
            self.record |= {LEARNED_FROM: now} if now else {}
            for sentence in origins_in_words(self.record):
                self.say(sentence)
            return
        for name, before in self.record.get(LEARNED_FROM, {}).items():
            if now.get(name, before)["sha256"] != before["sha256"]:
                self.say(
                    f"note: {before['source']} is not what it was when this run began: the run "
                    f"goes on with the {name} in its checkpoint"
                )


@dataclass(frozen=True)
class CheckpointWriter:
    """Writes the checkpoints of one run. `images` are the fingerprints of those trained on."""

    recipe: Recipe
    architecture: Architecture
    class_names: Sequence[str]
    images: Mapping[str, str]
    folder: RunFolder
    segments: Sequence[Segment]
    origins: Origins

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
            **self.origins.record,
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
    changed = {"data": data, "eval": attacks, "plugins": plugins}
    return with_absolute_networks(recipe).model_copy(update=changed)


def with_absolute_networks(recipe: Recipe) -> Recipe:
    """The recipe with the weights that it begins with and the networks that its method learns from
    named by their absolute paths, where they are files or folders here."""
    init = recipe.init and absolute_source(recipe.init)
    frozen = {name: absolute_source(source) for name, source in frozen_in(recipe).items()}
    return recipe.model_copy(
        update={"init": init, "method": recipe.method.model_copy(update=frozen)}
    )
