"""Leave no trace: other people's attacks reseed, accumulate gradients and switch modes; here all
that is undone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from rpat_cli.attacks.forward import attack_mode


@contextmanager
def own_randomness(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Every global generator (Python, NumPy, torch on CPU and on `device`) comes out of the block
    as it went in.

    With a `seed`, torch, NumPy and Python start from it inside the block.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    # Seeding reaches every CUDA device, not only the one in use; touching an unused CUDA would
    # initialise it.
    in_use = device.type == "cuda" or torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if in_use else []):
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The unwrapped model, in eval mode, its parameters closed to gradients; afterwards everything
    is as it was.

    FAB calls `backward`, which would add to every parameter's `.grad`; closed parameters also save
    that work.
    """
    open_parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with attack_mode(model) as unwrapped:
        for parameter in open_parameters:
            parameter.requires_grad_(False)
        try:
            yield unwrapped
        finally:
            for parameter in open_parameters:
                parameter.requires_grad_(True)
