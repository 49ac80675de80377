"""Models from a function in a user's own Python file, named `FILE.py:FUNCTION`."""

import inspect
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
        return cls(Path(match["file"]).expanduser(), match["function"]) if match else None

    def __str__(self) -> str:
        return f"{self.path}:{self.function}"

    @property
    def text(self) -> str:
        """What stands in the file. Raises `ConfigError` if it cannot be read."""
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            folder = self.path.parent
            near = (
                did_you_mean(self.path.name, [p.name for p in folder.glob("*.py")])
                if folder.is_dir()
                else ""
            )
            raise ConfigError(
                Problem("", f"there is no file {self.path}.", str(self), near)
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(Problem("", f"cannot be read: {error}.", str(self))) from None

    def build(self) -> "PortableModel":
        """Run the file, then the function. The file may import others that lie beside it.

        Raises `ConfigError`, with file and line, for a file or function that is missing or fails, a
        function that needs arguments, and anything returned that is no `nn.Module`.
        """
        try:
            module = _import(self.path, self.text)
        except Exception as error:
            raise self._failed("the file failed", error) from error
        function = self._find(module)
        try:
            with redirect_stdout(sys.stderr):  # whatever it says: stdout is for results
                model = function()
        except Exception as error:
            raise self._failed(f"{self.function}() failed", error) from error
        if not isinstance(model, nn.Module):
            given = f"{self.function}() returned {type(model).__name__}, not a torch.nn.Module."
            raise ConfigError(Problem("", given, str(self)))
        return PortableModel(model, self.path.resolve())

    def _find(self, module: ModuleType) -> Callable[[], Any]:
        function = getattr(module, self.function, None)
        own = [
            name
            for name, value in vars(module).items()
            if inspect.isroutine(value) and name[0] != "_"
        ]
        if function is None:
            listed = f"Its functions: {', '.join(own)}." if own else "There is no function in it."
            hint = f"{did_you_mean(self.function, own)} {listed}".strip()
            raise ConfigError(
                Problem(
                    "", f"there is no function {self.function!r} in {self.path}.", str(self), hint
                )
            )
        if not callable(function) or isinstance(function, nn.Module):
            wanted = "Name a function without arguments that returns the model."
            given = f"{self.function!r} is no function but {type(function).__name__}."
            raise ConfigError(Problem("", given, str(self), wanted))
        try:
            inspect.signature(function).bind()
        except TypeError as error:
            hint = "It is called without arguments: give them defaults."
            raise ConfigError(Problem("", f"{self.function}: {error}.", str(self), hint)) from None
        except ValueError:  # some builtins hide their signature: calling them will tell
            pass
        return function  # type: ignore[no-any-return]

    def _failed(self, what: str, error: Exception) -> ConfigError:
        if isinstance(error, ConfigError):
            return error
        place = place_in(self.path.resolve(), error)
        return ConfigError(Problem("", f"{what}: {type(error).__name__}: {error}", place))


class PortableModel(nn.Module):
    """The model of a file, which finds its classes again in another process: there the file is run
    once more first."""

    def __init__(self, model: nn.Module, path: Path) -> None:
        super().__init__()
        self.model = model
        self.path = path
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.path, pickle.dumps(self.model))


def _arrive(path: Path, model: bytes) -> PortableModel:
    _import(path, path.read_text(encoding="utf-8"))
    return PortableModel(pickle.loads(model), path)


def _import(path: Path, text: str) -> ModuleType:
    """The file as a module, run once per process and text; its name follows from both, so it is the
    same everywhere."""
    path = path.resolve()
    name = f"rpat_model_{path.stem}_{sha256(f'{path}:{text}'.encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last, so that nothing beside it hides a library
    with redirect_stdout(sys.stderr):
        return import_file(path, name)
