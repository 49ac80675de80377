"""How often the test images of a run were looked at: one entry for each evaluation in `evals/`.

A model that was chosen by what they showed is not measured by them any more. The record shows
whether that can be: when, with which attacks, and after which epoch of the training.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rpat_cli.records.eval_file import EPOCHS_DONE, EvalFile


@dataclass(frozen=True)
class TestLook:
    """One evaluation on test images.

    `created` is when it was written (ISO 8601), `checkpoint` and `epoch` what was measured, `n` on
    how many images. `epochs_done` is how far the training was then; None in files of versions that
    did not record it.
    """

    __test__ = False  # pytest: not a class of tests

    evaluation: str
    created: str
    checkpoint: str
    epoch: int
    attacks: tuple[str, ...]
    data: str
    n: int
    epochs_done: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        return {**asdict(self), "attacks": list(self.attacks)}

    @property
    def text(self) -> str:
        """`2026-11-22 10:00  best (epoch 2), after epoch 3: clean, pgd-20 on 500 images`"""
        when = self.created[:16].replace("T", " ")
        after = "" if self.epochs_done is None else f", after epoch {self.epochs_done}"
        attacks = ", ".join(self.attacks) or "clean"
        return (
            f"{when}  {self.checkpoint} (epoch {self.epoch}){after}: {attacks} on {self.n} images"
        )


def look_of(file: EvalFile, n: int) -> TestLook:
    """The entry for a file of `evals/`, which measured `n` images."""
    done = file.record.get(EPOCHS_DONE)
    return TestLook(
        evaluation=file.path.name,
        created=file.created,
        checkpoint=file.checkpoint,
        epoch=file.epoch,
        attacks=tuple(str(result["label"]) for result in file.record["results"]),
        data=file.data,
        n=n,
        epochs_done=done if isinstance(done, int) else None,
    )


def remarks_on(looks: Iterable[TestLook], epochs: int) -> list[str]:
    """Evaluations that were made before the last of the `epochs` was done, if there are any."""
    early = [look for look in looks if look.epochs_done is not None and look.epochs_done < epochs]
    if not early:
        return []
    times = "once" if len(early) == 1 else f"{len(early)} times"
    after = sorted({look.epochs_done for look in early if look.epochs_done is not None})
    return [
        f"the test images were evaluated {times} before the training ended (after epoch "
        f"{', '.join(map(str, after))} of {epochs}): what was decided after that has seen them"
    ]
