"""Putting the weights of a file of ours into the network that it describes."""

from typing import Any

import torch
from torch import nn

from rpat_cli.errors import CheckpointError, RpatError
from rpat_cli.loading.architecture import Architecture
from rpat_cli.loading.foreign import misfit
from rpat_cli.models import in_library

MAX_MESSAGE = 300
"""Characters that are shown of what a file holds: it may be a list of a million numbers."""


def check_size(architecture: Architecture, state: dict[str, Any], source: str) -> None:
    """Raise `CheckpointError` if a network is not the one that the weights are of, before it takes
    any memory: a small file may claim a billion classes."""
    if in_library(architecture.name):
        return  # they are tried with images while they are built
    try:
        with torch.device("meta"):  # shapes, but no numbers
            shapes = architecture.build().state_dict()
    except RpatError as error:
        message = f"{source} describes a network that cannot be built: {error}"
        raise CheckpointError(message[:MAX_MESSAGE]) from None
    except Exception:  # a network that computes with numbers while it is built
        return
    _check_fit(state, shapes, source)


def load_weights(model: nn.Module, state: dict[str, Any], source: str) -> None:
    """Load a checkpoint's weights. Raises `CheckpointError` naming what does not fit."""
    own = model.state_dict()
    _check_fit(state, own, source)
    # What fits may lack BatchNorm's counters of batches, on which no result depends.
    model.load_state_dict({key: state.get(key, value) for key, value in own.items()})


def _check_fit(state: dict[str, Any], wanted: dict[str, Any], source: str) -> None:
    differences = misfit(state, wanted)
    if differences:
        raise CheckpointError(f"{source} belongs to another model: {differences}.")
