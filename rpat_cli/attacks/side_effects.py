"""Leave no trace: what an attack changes (modes, gradients, random generators) is restored here."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rpat_cli.attacks.compiling import compiled_forward, compiling_allowed
from rpat_cli.attacks.folding import folded, folding_allowed
from rpat_cli.attacks.forward import unwrap
from rpat_cli.attacks.graphs import can_be_recorded, graphed_forward, graphing_allowed

BnMode = Literal["eval", "train", "batch"]


@contextmanager
def attack_mode(model: nn.Module, bn_mode: BnMode = "eval") -> Iterator[nn.Module]:
    """The unwrapped model in eval or train mode, which gets copies of its images; afterwards each
    module is in its former mode.

    "batch" is train mode in which BatchNorm's running statistics stay as they are. The weights must
    not change in this block: where `folding`, `compiling` or `graphing` allows it, the model is
    folded, compiled, or replayed as a CUDA graph.
    """
    model = unwrap(model)
    was_training = [(module, module.training) for module in model.modules()]
    model.train(bn_mode != "eval")
    keeping = running_statistics_kept(model) if bn_mode == "batch" else nullcontext()
    try:
        with given_copies(model), _faster(model), _out_of_inference_mode(), keeping:
            yield model
    finally:
        for module, training in was_training:
            module.training = training


def _faster(model: nn.Module) -> AbstractContextManager[object]:
    if compiling_allowed():
        return compiled_forward(model)
    if graphing_allowed() and can_be_recorded(model):
        return graphed_forward(model)  # of plain weights: folded ones are new in every attack
    return folded(model) if folding_allowed() else nullcontext()


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """In this block BatchNorm in train mode uses batch statistics and moves no running ones."""
    tracking = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


@contextmanager
def given_copies(model: nn.Module) -> Iterator[None]:
    """In this block each call of the model gets a copy of its images.

    A model that normalizes in place would change what it is attacked with, and what the attack
    returns; and an image whose gradient is asked for, a leaf, may not be changed in place at all.
    A model that says by `keeps_images` that it does not do so gets the images themselves.
    """
    if getattr(model, "keeps_images", False):
        yield
        return
    copying = model.register_forward_pre_hook(
        lambda _, inputs: tuple(
            each.clone() if isinstance(each, Tensor) else each for each in inputs
        )
    )
    try:
        yield
    finally:
        copying.remove()


def _out_of_inference_mode() -> AbstractContextManager[object]:
    """Only where it is on: leaving it turns gradients on as well."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


@contextmanager
def differentiable() -> Iterator[None]:
    """In this block gradients can be taken, also where the caller is in `torch.inference_mode()` or
    `torch.no_grad()`: an attack without gradients would break nothing."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def own_randomness(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Every global generator (Python, NumPy, torch on CPU and on `device`) comes out of the block
    as it went in.

    With a `seed`, torch, NumPy and Python start from it inside the block.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    # Seeding reaches every CUDA device, not only the one in use; touching an unused CUDA would
    # initialize it.
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
def tensor_cores(device: torch.device, *, tf32: bool, measure: bool = False) -> Iterator[None]:
    """In this block float32 is rounded to TF32 in products on CUDA, or it is not, as torch does in
    convolutions unless it is told; `measure` lets cuDNN choose the fastest algorithm for each size.
    Nothing on other devices."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark)
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = tf32, tf32, measure
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """In this block float32 is computed as such: without autocast and without TF32."""
    with torch.autocast(device.type, enabled=False), tensor_cores(device, tf32=False):
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The unwrapped model, in eval mode, its parameters without gradients; then all as it was.

    FAB calls `backward`, which would add to every parameter's `.grad`; frozen parameters also save
    that work.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with attack_mode(model) as unwrapped:
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            yield unwrapped
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
