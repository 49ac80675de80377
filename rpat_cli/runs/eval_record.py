"""What is on disk of an evaluation: while it runs, its chunks and the examples that they brought;
then its JSON file, and beside it the worst adversarial examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from rpat_cli.attacks.threat import parse_threat
from rpat_cli.data.base import Dataset, Split
from rpat_cli.data.choice import Limit, choose
from rpat_cli.evaluation.gallery import Gallery, worst_rows
from rpat_cli.evaluation.parallel.chunks import ChooseRows, ChunkResult
from rpat_cli.evaluation.parallel.store import ChunkStore
from rpat_cli.evaluation.plausible import implausible
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.evaluation.worst_case import WorstCase, all_rows
from rpat_cli.loading.published import OWN
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.records import eval_file
from rpat_cli.records.examples import write_examples
from rpat_cli.records.metrics import read_metrics
from rpat_cli.runs.environment import environment
from rpat_cli.runs.target import OpenedTarget

EVAL_FORMAT = 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Unfinished:
    """An evaluation that is not finished."""

    store: ChunkStore
    gallery: Gallery
    known: tuple[ChunkResult, ...]
    worst: WorstCase | None = None

    @classmethod
    def begun(
        cls, store: ChunkStore, images: Split, specs: Sequence[AttackSpec], *, save: bool, say: Say
    ) -> "Unfinished":
        """With what an earlier, interrupted run has left; `save`: all adversarial images are
        collected."""
        gallery = Gallery(images.labels, store.path.with_suffix(".npz"))
        if not save:
            return cls(store, gallery, store.known)
        path, shape = store.path.with_suffix(".adv"), (len(images), *images.shape)
        known = store.known
        if known and not WorstCase.is_there(path, shape):
            say(f"{path} is lost: all images are attacked again")
            known = ()
        labels = [spec.label for spec in specs]
        return cls(store, gallery, known, WorstCase(path, shape, labels, known))

    @property
    def keep(self) -> ChooseRows:
        """Whose adversarial images are to come with each chunk."""
        return worst_rows if self.worst is None else all_rows

    def add(self, chunk: ChunkResult) -> None:
        """Keep one chunk, through to the disk; last, that it is known: then it is not run again.

        Raises `RunFolderError` if that fails.
        """
        self.gallery.add(chunk)
        if self.worst:
            self.worst.add(chunk)
        self.store.add(chunk)

    def remove(self) -> None:
        """Forget it all, once the result is written."""
        self.gallery.remove()
        if self.worst:
            self.worst.remove()
        self.store.remove()


def warnings_of(saved: SavedModel, evaluation: Evaluation, data: Dataset) -> list[str]:
    """What makes the figures doubtful: a clean accuracy that the model was not trained to."""
    problem = implausible(evaluation.clean, data.classes, saved.recorded_acc)
    if not problem:
        return []
    if saved.normalized and saved.normalized != OWN:
        remedy = (
            f"The normalization ({saved.normalized}) may be another one than it was trained with: "
            "try --normalize none|cifar10|imagenet|MEAN/STD. Or is it the order of the classes, or "
            f"the network ({saved.architecture.name}: --model), whose activation and padding no "
            "weights show?"
        )
    else:
        remedy = (
            "Are these the images, the order of classes and the range of pixels, [0, 1], that it "
            "was trained with?"
        )
    return [f"WARN: {problem}, so the robust accuracies say little. {remedy}"]


def write_evaluation(opened: OpenedTarget, evaluation: Evaluation, key: str) -> Path:
    """Write the JSON file of an evaluation, under a new name."""
    saved, data, threat = opened.saved, opened.data, evaluation.threat
    record: dict[str, Any] = {
        "format": EVAL_FORMAT,
        "key": key,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        eval_file.ORDER: eval_file.next_order(saved.folder.evals),
        "environment": environment(),
        "device": str(opened.compute.device),
        "checkpoint": saved.file.stem,
        "epoch": saved.epoch,
        "model": saved.architecture.to_dict(),
        "data": {
            "name": data.name,
            "split": "test",
            "n": evaluation.n,
            "fingerprint": data.fingerprint,
            "class_names": list(data.class_names),
        },
        "threat": {"norm": threat.norm, "eps": threat.eps},
        "seed": opened.recipe.seed,
        **evaluation.to_dict(),
    }
    if remarks := [*saved.remarks, *warnings_of(saved, evaluation, data)]:
        record["remarks"] = remarks
    asked = dict.fromkeys(map(parse_threat, opened.recipe.eval_threats))
    if len(asked) > 1:
        record[eval_file.THREATS] = [{"norm": norm, "eps": eps} for norm, eps in asked]
    if saved.key:
        record["weights"] = saved.key
    if records := read_metrics(saved.folder.metrics):
        record[eval_file.EPOCHS_DONE] = records[-1]["epoch"]
    stem = f"{saved.file.stem}_{threat.norm}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    return eval_file.write_new(saved.folder.evals, stem, record).path


def write_gallery(
    file: Path, gallery: Gallery, evaluation: Evaluation, images: Split, number: Tensor
) -> None:
    """Write the examples that were kept beside the evaluation's `file`. `images` are those that
    were evaluated, `number` (N,) their numbers in the test set."""
    if not len(gallery):
        return

    def clean(indices: Tensor) -> Tensor:
        return images.subset(indices).tensors()[0].cpu()

    write_examples(file, gallery.examples(clean, evaluation.clean_predicted, number))


def numbers_of(split: Split, limit: Limit | None) -> Tensor:
    """The numbers (N,) in the test set, from 0, of the images that a limit chooses."""
    return choose(limit, split.labels, getattr(split, "files", None)).cpu()
