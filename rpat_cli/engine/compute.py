"""Where and in which precision to compute: one small object instead of `.cuda()` everywhere."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from rpat_cli.attacks.compiling import compiling
from rpat_cli.attacks.folding import folding
from rpat_cli.attacks.graphs import graphing
from rpat_cli.attacks.side_effects import tensor_cores
from rpat_cli.errors import ConfigError
from rpat_cli.hardware import why_not_bf16
from rpat_cli.user_code import brought_class

ModelT = TypeVar("ModelT", bound=nn.Module)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device, the reduced precision of forward passes on it (`None`: float32 throughout), and how
    to be faster.

    tf32: float32 products may be rounded to 10 bits of mantissa, as tensor cores compute them.
    fast: attacks fold BatchNorm into convolutions: the same up to rounding.
    compiled: attacks compile the networks that they attack (`torch.compile`).
    """

    device: torch.device
    dtype: torch.dtype | None = None
    tf32: bool = False
    fast: bool = False
    compiled: bool = False

    def place(self, model: ModelT) -> ModelT:
        """Move a model to the device, in the memory format that convolutions are fastest in.

        channels_last made a training step on a CPU a third faster, and tensor cores need it. A
        network with modules of a user's stays as it is: `x.view(B, -1)` after a convolution fails
        in that format.
        """
        if brought_class(model) is not None:
            return model.to(self.device)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Forward passes in this block, and attacks, compute as asked for here. On CUDA attacks
        replay graphs of the networks, unless the variable RPAT_CUDA_GRAPHS is 0."""
        with ExitStack() as stack:
            if self.dtype is not None:
                stack.enter_context(torch.autocast(self.device.type, dtype=self.dtype))
            if self.compiled:  # a compiler fuses BatchNorm by itself
                stack.enter_context(compiling())
            elif self.fast:
                stack.enter_context(folding())
            if self.device.type == "cuda" and os.environ.get("RPAT_CUDA_GRAPHS") != "0":
                stack.enter_context(graphing())
            yield

    def settings(self) -> AbstractContextManager[None]:
        """The settings of the process to train under, afterwards as they were: TF32 as asked for,
        and on CUDA the convolutions that are measured to be fastest."""
        return tensor_cores(self.device, tf32=self.tf32, measure=True)

    def scaler(self) -> torch.amp.GradScaler:
        """float16 gradients underflow without loss scaling; in any other precision the scaler does
        nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)

    @property
    def precision(self) -> str:
        if self.tf32:
            return "tf32"
        return next((name for name, dtype in DTYPES.items() if dtype is self.dtype), "fp32")


def resolve_compute(
    device: str = "auto",
    precision: str = "auto",
    *,
    parameters: Callable[[], int] = lambda: 0,
    fast: bool = False,
    compiled: bool = False,
) -> Compute:
    """The device and precision by name; `auto` picks what this machine has.

    `auto` precision is bfloat16 where the device computes it natively, on a CPU only for a network
    of so many `parameters` that it is faster; elsewhere float32. The network is not counted before
    that matters. Raises `ConfigError` for a device that this machine lacks, for float16 on the CPU,
    and for TF32 anywhere but on CUDA.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[device]:
        found = ", ".join(name for name, is_there in available.items() if is_there)
        raise ConfigError(
            f"device {device!r}: this torch ({torch.__version__}) finds no such device. "
            f"Available: {found}."
        )
    if precision == "auto":
        precision = "fp32" if why_not_bf16(device, parameters) else "bf16"
    if precision == "fp16" and device == "cpu":
        raise ConfigError(
            "precision 'fp16': float16 training needs a GPU. Allowed on the CPU: fp32, bf16."
        )
    if precision == "tf32" and device != "cuda":
        raise ConfigError(
            f"precision 'tf32' needs an NVIDIA GPU (cuda). Allowed on {device}: fp32, bf16."
        )
    return Compute(torch.device(device), DTYPES.get(precision), precision == "tf32", fast, compiled)


def seed_everything(seed: int) -> None:
    """Seed torch on every device, numpy and Python."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's global generators: the CPU's, and the device's own."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what `rng_state` returned. A run that has moved to another kind of device goes on
    with that device's generator as it is."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
