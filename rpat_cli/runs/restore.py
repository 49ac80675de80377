"""From the content of a checkpoint back to the state of a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rpat_cli.engine.loop import TrainLoop
from rpat_cli.errors import CheckpointError, RpatError
from rpat_cli.loading.fit import load_weights


def check_training(state: Mapping[str, Any], file: Path) -> None:
    """Raise `CheckpointError` if the state of the training has not the numbers that say how far it
    was."""
    training, recipe = state["training"], state["recipe"]
    counts = (
        [training.get(key) for key in ("epoch", "step")]
        if isinstance(training, Mapping)
        else [None]
    )
    counts.append(recipe.get("epochs"))
    if not all(isinstance(count, int) and 0 <= count < 2**62 for count in counts):
        raise CheckpointError(
            f"{file} is damaged or of another version of rpat: it does not say how far the "
            "training was."
        )


def restore(loop: TrainLoop, state: Mapping[str, Any], file: Path) -> None:
    """Put model, optimizer and all else back. Raises `CheckpointError` if a part does not fit."""
    load_weights(loop.model, dict(state["model"]), str(file))
    try:
        loop.load_state_dict({"model": state["model"], **state["training"]})
    except RpatError:
        raise
    except Exception as error:  # whatever torch raises for a state of another form
        raise CheckpointError(
            f"{file} is damaged or of another version of rpat: the state of its training cannot be "
            f"read ({type(error).__name__})."
        ) from error
