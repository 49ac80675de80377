"""Where and in which arithmetic to compute: one small object instead of `.cuda()` everywhere."""

import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from rpat_cli.errors import ConfigError

ModelT = TypeVar("ModelT", bound=nn.Module)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device and the reduced precision for forward passes there (`None`: float32 throughout)."""

    device: torch.device
    dtype: torch.dtype | None = None

    def place(self, model: ModelT) -> ModelT:
        """Move a model to the device, its convolutions in the memory order that is fastest there.

        Channels-last took a third off a training step on a CPU; it is what tensor cores want, too.
        """
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def autocast(self) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """float16 gradients underflow without scaling; for every other arithmetic the scaler does
        nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)

    @property
    def precision(self) -> str:
        return next((name for name, dtype in DTYPES.items() if dtype is self.dtype), "fp32")


def resolve_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """The device and precision that `auto` stands for here. Raises `ConfigError` for what this
    machine lacks.

    `auto` precision is bfloat16 on GPUs that compute it natively and float32 elsewhere.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[device]:
        here = ", ".join(name for name, there in available.items() if there)
        raise ConfigError(
            f"device {device!r}: this torch ({torch.__version__}) finds no such device. "
            f"Available: {here}."
        )
    if precision == "auto":
        precision = (
            "bf16"
            if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            else "fp32"
        )
    if precision == "fp16" and device == "cpu":
        raise ConfigError(
            "precision 'fp16': float16 training needs a GPU. Allowed on the cpu: fp32, bf16."
        )
    return Compute(torch.device(device), DTYPES.get(precision))


def seed_everything(seed: int) -> None:
    """Seed torch on every device, numpy and Python."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's generators: the host's, and the device's own where it has one."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Take up what `rng_state` returned. A run that moves to another kind of device goes on with
    its new generator."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
