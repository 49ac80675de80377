"""What this machine has, and what is missing for what: what `rpat doctor` shows."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from rpat_cli.errors import RpatError
from rpat_cli.hardware import BF16_PAYS_FROM, native_bf16
from rpat_cli.loading.saved_model import can_write
from rpat_cli.records.run_folder import RUNS
from rpat_cli.runs.environment import environment
from rpat_cli.text import counted, file_size

OK, MISSING, PROBLEM = "ok", "missing", "problem"
"""As it should be; not there, which only some commands need; to be mended first."""

DISTRIBUTIONS = (
    *("rpat", "torch", "torchvision", "numpy", "pillow", "typer", "rich", "PyYAML", "pydantic"),
    *("Jinja2", "scipy", "cloudpickle"),
)
"""What every command needs."""

EXTRAS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "attacks": (("foolbox",), "the attacks cw, ddn, fmn, hopskipjump and boundary"),
    "timm": (("timm",), "models named timm:NAME"),
    "hub": (("safetensors", "huggingface_hub"), "models named hf:USER/NAME, .safetensors"),
    "export": (("onnx", "onnxruntime", "onnxscript"), "rpat export --format onnx"),
    "tensorboard": (("tensorboard",), "--track tensorboard"),
    "wandb": (("wandb",), "--track wandb"),
    "mlflow": (("mlflow",), "--track mlflow"),
    "optuna": (("optuna",), "sweeps with search: optuna"),
    "slurm": (("submitit",), "sweeps with --engine slurm"),
    "ray": (("ray",), "sweeps with --engine ray"),
}
"""Extra -> the modules that it brings, and what needs them."""

PROGRAMS: Mapping[str, str] = {
    "git": "the commit in records",
    "sbatch": "sweeps with --engine slurm",
}

LITTLE_SPACE = 1e9
"""Bytes: a few checkpoints of a large network."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy`: what to do where it is not as it should be."""

    topic: str
    name: str
    state: str
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at versions, devices, extras, programs and folders. Nothing is changed or downloaded."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _processor,
        _accelerators,
        _extras,
        _programs,
        _folders,
        _images,
    )
    return [finding for look in looks for finding in look()]


def healthy(findings: list[Finding]) -> bool:
    """Whether training and evaluating work; what only some commands need may be missing."""
    return all(finding.state != PROBLEM for finding in findings)


def as_dict(findings: list[Finding]) -> dict[str, Any]:
    """Plain builtins, ready for JSON."""
    return {
        "healthy": healthy(findings),
        "environment": environment(),
        "findings": [asdict(finding) for finding in findings],
    }


def _versions() -> Iterator[Finding]:
    place = f"{platform.python_version()} ({sys.executable})"
    yield Finding("versions", "python", OK, place)
    for name in DISTRIBUTIONS:
        try:
            yield Finding("versions", name, OK, version(name))
        except PackageNotFoundError:
            remedy = "Install it with: pip install rpat"
            # rpat itself may be run from its source tree.
            state, text = (OK, "not installed: run from its source") if name == "rpat" else ("", "")
            yield Finding("versions", name, state or PROBLEM, text or "not installed", remedy)
    engines = [name for name in ("pyautoattack", "autoattack") if find_spec(name)]
    if engines:
        yield Finding("versions", engines[0], OK, _version(engines[0]))
    else:
        remedy = "Install it with: pip install pyautoattack"
        yield Finding("versions", "pyautoattack", PROBLEM, "not installed", remedy)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "of unknown version"


def _processor() -> Iterator[Finding]:
    cores = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    threads = counted(torch.get_num_threads(), "thread")
    text = f"{environment()['cpu']}, {allowed} of {cores} cores, {threads}"
    yield Finding("devices", "cpu", OK, f"{text}, {_bf16('cpu')}")


def _bf16(device: str) -> str:
    if not native_bf16(device):
        return "no native bf16"
    large = "" if device == "cuda" else f" for networks of {BF16_PAYS_FROM:,} parameters or more"
    return f"native bf16: --precision auto takes it{large}"


def _accelerators() -> Iterator[Finding]:
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            text = f"{card.name}, {file_size(card.total_memory)}, {_bf16('cuda')}"
            yield Finding("devices", f"cuda:{number}", OK, text)
    else:
        built = torch.version.cuda
        text = "no GPU that torch can use" if built else "torch was built without CUDA"
        remedy = "Install the driver of the GPU." if built else "Install a CUDA build of torch."
        yield Finding("devices", "cuda", MISSING, text, f"With an NVIDIA GPU: {remedy}")
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", OK, "Apple GPU")


def _extras() -> Iterator[Finding]:
    for extra, (modules, purpose) in EXTRAS.items():
        lacking = [module for module in modules if find_spec(module) is None]
        if lacking:
            remedy = f"For {purpose}: pip install 'rpat[{extra}]'"
            yield Finding("extras", extra, MISSING, f"without {', '.join(lacking)}", remedy)
        else:
            have = ", ".join(f"{module} {_version(module)}" for module in modules)
            yield Finding("extras", extra, OK, have)


def _programs() -> Iterator[Finding]:
    for name, purpose in PROGRAMS.items():
        path = shutil.which(name)
        if path:
            yield Finding("programs", name, OK, path)
        else:
            yield Finding("programs", name, MISSING, "not found", f"Only needed for {purpose}.")


def _folders() -> Iterator[Finding]:
    for name, path in {
        "runs": RUNS.absolute(),
        "temporary": Path(tempfile.gettempdir()),
        "weights": Path(torch.hub.get_dir()),
    }.items():
        there = next(each for each in (path, *path.parents) if each.exists())
        free = shutil.disk_usage(there).free
        if not can_write(path):
            state = MISSING if name == "weights" else PROBLEM
            remedy = "Go to a folder you may write to, or name one with --out."
            yield Finding("folders", name, state, f"{path} cannot be written to", remedy)
        elif free < LITTLE_SPACE:
            text = f"{path}, only {file_size(free)} free"
            yield Finding("folders", name, PROBLEM, text, "Make space: see rpat runs rm.")
        else:
            yield Finding("folders", name, OK, f"{path}, {file_size(free)} free")


def _images() -> Iterator[Finding]:
    from rpat_cli.recipe.data_section import DataSection
    from rpat_cli.runs.build import build_data

    try:
        n = len(build_data(DataSection(), 0, test_only=True).test)
    except RpatError as error:
        yield Finding("data", "fashion-mini", PROBLEM, str(error), "Install rpat again.")
    else:
        yield Finding("data", "fashion-mini", OK, f"{n} test images, inside the package")
