"""The process that calls rpat from Python: it comes out of a call as it went in, and what is set in
it does not change what is measured."""

import inspect
import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rpat_cli.attacks.side_effects import differentiable, own_randomness
from rpat_cli.data.in_memory import Given, taken_from
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.parallel.processes import UNGUARDED, WORKER, guard_hint
from rpat_cli.user_code import ascribed


@contextmanager
def called(name: str) -> Iterator[None]:
    """Around a call of the public function `name`.

    Random generators, threads, default dtype and device, autocast, grad and inference mode, loggers
    and warning filters are the caller's again afterwards; inside they are as the command line has
    them. Errors of code that is not rpat's leave it as `UserCodeError`. Raises `ConfigError` in a
    process that is only importing the caller's script.
    """
    _check_guard(name)
    with ascribed(), _process_state(), differentiable():
        yield


@contextmanager
def _process_state() -> Iterator[None]:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    device = torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    with ExitStack() as stack:
        stack.enter_context(own_randomness(device))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_loggers())
        for kind in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


@contextmanager
def _loggers() -> Iterator[None]:
    """The level and handlers of the root logger, and whether logging is disabled."""
    root, disabled = logging.getLogger(), logging.root.manager.disable
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        logging.disable(disabled)


def _check_guard(name: str) -> None:
    process = multiprocessing.current_process()
    if not getattr(process, "_inheriting", False):
        return
    if process.name.startswith(WORKER):
        sys.exit(UNGUARDED)  # the process that has started this one says what to do
    raise ConfigError(
        f"rpat.{name}() was called while a new process imports the script. {guard_hint()}"
    )


def as_target(given: Any, call: str) -> Path | nn.Module | None:
    """What is to be evaluated: a path, a name, a `RunFolder`, a model or None. Raises
    `ConfigError`."""
    return given if given is None or isinstance(given, nn.Module) else named(given, call)


def named(given: Any, call: str) -> Path:
    """What is to be loaded: a path, a name or a `RunFolder`. Raises `ConfigError`."""
    if isinstance(given, str | os.PathLike):
        return Path(given)
    message = f"cannot take {_described(given)}."
    hint = (
        "Give a run folder, a checkpoint file, a name such as torchvision:resnet18 or "
        "robustbench:Carmon2019Unlabeled, or a torch.nn.Module."
    )
    if callable(given):
        hint += " A function can be the forward() of a module."
    raise ConfigError(Problem("", message, call, hint))


def as_suite(attack: Any, call: str) -> str:
    """What `--attack` takes, from one string or several. Raises `ConfigError`."""
    if isinstance(attack, str):
        return attack
    if isinstance(attack, Sequence) and all(isinstance(word, str) for word in attack):
        return ",".join(attack)
    message = f"must be text, such as 'clean,pgd-20', or a list of it; given {attack!r}."
    raise ConfigError(Problem("attack", message, call))


def _described(given: Any) -> str:
    if inspect.isroutine(given):
        return f"the function {getattr(given, '__name__', given)!r}"
    if inspect.isclass(given):
        return f"the class {given.__name__} (an object of it: {given.__name__}(...))"
    return f"an object of the type {type(given).__name__}"


def images_in(keys: dict[str, Any], *, training: bool) -> tuple[Given | None, dict[str, Any]]:
    """Images that were given as `data`, and the recipe keys with the section that names them.
    Raises `DataError` for images of another form."""
    if "data" not in keys:
        return None, keys
    images, section = taken_from(keys["data"], training=training)
    return images, {**keys, "data": section}
