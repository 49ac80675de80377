"""Models that a function in a user's own Python file returns: `FILE.py:FUNCTION`."""

import inspect
import os
import pickle
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from rpat_cli.errors import ConfigError, Problem, did_you_mean
from rpat_cli.recipe.plugins import place_in
from rpat_cli.records.files import user_path
from rpat_cli.records.regular import read_regular
from rpat_cli.registry import import_file

_NAME = re.compile(r"(?P<file>.+\.py):(?P<function>[^:/\\]+)")


@dataclass(frozen=True)
class ModelFile:
    """A function without arguments, in the Python file `path`, that returns a network."""

    path: Path
    function: str

    @classmethod
    def parse(cls, text: str) -> "ModelFile | None":
        """Read `my.py:build`; None for a text of another form."""
        match = _NAME.fullmatch(text)
        return cls(user_path(match["file"]), match["function"]) if match else None

    def __str__(self) -> str:
        return f"{self.path}:{self.function}"

    @property
    def text(self) -> str:
        """The program text. Raises `ConfigError` if it cannot be read."""
        try:
            return read_regular(self.path).decode("utf-8")
        except FileNotFoundError:
            neighbors = [path.name for path in self.path.parent.glob("*.py")]
            hint = did_you_mean(self.path.name, neighbors)
            raise ConfigError(
                Problem("", f"there is no file {self.path}.", str(self), hint)
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(Problem("", f"cannot be read: {reason}.", str(self))) from None

    def build(self) -> "PortableModel":
        """Run the file, then the function. The file may import others in its folder.

        Raises `ConfigError`, with file and line, for a file or function that is missing or fails, a
        function that needs arguments, and a result that is not an `nn.Module`.
        """
        function = self.function_in_it()
        self._check_arguments(function)
        try:
            with redirect_stdout(sys.stderr):  # what it prints: stdout is for results
                model = function()
        except Exception as error:
            raise self._failed(f"{self.function}() failed", error) from error
        if not isinstance(model, nn.Module):
            message = f"{self.function}() returned {type(model).__name__}, not a torch.nn.Module."
            raise ConfigError(Problem("", message, str(self)))
        return PortableModel(model, self.path.resolve())

    def function_in_it(self) -> Callable[..., Any]:
        """Run the file. Raises `ConfigError`, with file and line, for one that is missing or fails,
        or has no such function."""
        try:
            module = _import(self.path, self.text)
        except Exception as error:
            raise self._failed("the file failed", error) from error
        function = getattr(module, self.function, None)
        if function is None:
            message = f"there is no function {self.function!r} in {self.path}."
            raise ConfigError(Problem("", message, str(self), self._functions_hint(module)))
        if not callable(function) or isinstance(function, nn.Module):
            message = f"{self.function!r} is not a function but a {type(function).__name__}."
            raise ConfigError(Problem("", message, str(self), "Name a function."))
        return function  # type: ignore[no-any-return]

    def _check_arguments(self, function: Callable[..., Any]) -> None:
        try:
            inspect.signature(function).bind()
        except TypeError as error:
            hint = "It is called without arguments: give its parameters defaults."
            raise ConfigError(Problem("", f"{self.function}: {error}.", str(self), hint)) from None
        except ValueError:  # some builtins have no signature: calling them will show
            pass

    def _functions_hint(self, module: ModuleType) -> str:
        functions = [
            name
            for name, value in vars(module).items()
            if inspect.isroutine(value) and not name.startswith("_")
        ]
        if not functions:
            return "There is no function in it."
        near = did_you_mean(self.function, functions)
        return f"{near} Its functions: {', '.join(functions)}.".strip()

    def _failed(self, what: str, error: Exception) -> ConfigError:
        if isinstance(error, ConfigError):
            return error
        place = place_in(self.path.resolve(), error)
        return ConfigError(Problem("", f"{what}: {type(error).__name__}: {error}", place))


class PortableModel(nn.Module):
    """A model whose classes are defined in a Python file, so that it can be pickled to another
    process: there the file is run first."""

    def __init__(self, model: nn.Module, path: Path) -> None:
        super().__init__()
        self.model = model
        self.path = path
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.path, pickle.dumps(self.model))


def _unpickle(path: Path, model: bytes) -> PortableModel:
    _import(path, read_regular(path).decode("utf-8"))
    return PortableModel(pickle.loads(model), path)


def _import(path: Path, text: str) -> ModuleType:
    """The file as a module, run once per process and program text; the module's name follows from
    path and text, so that pickled classes are found under it in every process."""
    path = path.resolve()
    # The path may hold bytes that are no text.
    digest = sha256(os.fsencode(path) + b":" + text.encode()).hexdigest()
    name = f"rpat_model_{path.stem}_{digest[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    return import_file(path, name)
