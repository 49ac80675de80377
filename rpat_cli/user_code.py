"""Code that is not rpat's: models, methods, attacks, data sets and plugins of users.

What fails in there is reported as theirs, with file and line, and never as a bug of rpat. Whose an
error is follows from its traceback: the innermost frame that is in no library decides.
"""

import inspect
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rpat_cli.errors import DataError, RpatError, UserCodeError

PACKAGE = str(Path(__file__).parent) + os.sep
LIBRARIES = tuple(
    path + os.sep
    for folder in (
        *(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        str(Path(os.__file__).parent),
        # Environments may be layered: the libraries of another one come by PYTHONPATH or a .pth.
        # A folder that `pip install --target` filled has any name.
        *(
            entry
            for entry in sys.path
            if Path(entry).name in ("site-packages", "dist-packages")
            or any(Path(entry).glob("*.dist-info"))
        ),
    )
    for path in {str(Path(folder).absolute()), str(Path(folder).resolve())}
)
"""The folders of the standard library and of what pip installs."""

KNOWN = ("rpat_cli", "torch", "torchvision", "timm")
"""The packages whose networks rpat itself offers."""

_plugin_packages: set[str] = set()


def is_plugin_package(package: str) -> None:
    """From now on, what this installed package defines is a user's code."""
    _plugin_packages.add(package.partition(".")[0])


@dataclass(frozen=True)
class Place:
    """A line of a user's code, and the function it is in. `through_rpat`: it called rpat, where the
    error then was."""

    file: str
    line: int
    function: str
    through_rpat: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return where if self.function == "<module>" else f"{where}, in {self.function}"


def place_of(error: BaseException) -> Place | None:
    """The line of a user's code that an error comes from; None for an error of rpat's own."""
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename, ""):
        return Place(error.filename, error.lineno or 1, "<module>")
    through = ""
    for frame, line in reversed(list(_frames(error.__traceback__))):
        file = frame.f_code.co_filename
        if _is_users(file, frame.f_globals.get("__name__", "")):
            return Place(file, line, frame.f_code.co_name, through)
        if file.startswith(PACKAGE) and not through:
            through = f"{file.removeprefix(PACKAGE)}:{line}"
    return None


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _is_users(file: str, module: str) -> bool:
    if file.startswith(PACKAGE):
        return False
    if file.startswith("<"):  # typed in, or made by a library, as a dataclass's __init__ is
        return module == "__main__" or file.startswith(("<stdin", "<ipython"))
    root = module.partition(".")[0]
    if root in _plugin_packages:
        return True
    if root in KNOWN:
        return False
    return not file.startswith(LIBRARIES) and Path(file).name != "rpat"  # pip's console script


def theirs(error: BaseException, model: object = None) -> UserCodeError | None:
    """The error as one of a user's code; None if it is not.

    `model` is a network in use: if a user brought it, what torch itself raises is its error too, as
    where its gradient cannot be computed.
    """
    place = place_of(error)
    if place is None:
        brought = brought_class(model)
        if brought is None or not _raised_in_library(error):
            return None
        return UserCodeError(
            f"{_class_place(brought)}: the model {brought.__name__} fails in torch: "
            f"{_what(error)}{_HINT}"
        )
    if place.through_rpat:
        return UserCodeError(
            f"{place}: what it called in rpat ({place.through_rpat}) failed: {_what(error)}. Check "
            f"what this line passes.{_DEBUG}"
        )
    return UserCodeError(f"{place}: {_what(error)}{_HINT}")


_DEBUG = " RPAT_DEBUG=1 shows the traceback."
_HINT = f"\nThis is in the code that you brought, not in rpat.{_DEBUG}"


def _what(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return f"it called sys.exit({code}): what rpat runs has to return or to raise."
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _raised_in_library(error: BaseException) -> bool:
    files = [frame.f_code.co_filename for frame, _ in _frames(error.__traceback__)]
    return bool(files) and not files[-1].startswith(PACKAGE)


@contextmanager
def ascribed(model: object = None) -> Iterator[None]:
    """An error of a user's code leaves this block as `UserCodeError`, chained to it; a bug of rpat,
    an `RpatError` and a `KeyboardInterrupt` leave it as they are."""
    try:
        yield
    except RpatError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        if "DataLoader worker" in str(error):  # torch raises it wherever this process is just then
            raise DataError(
                f"a process that decodes images is gone ({str(error).splitlines()[0]}): it was "
                "killed, perhaps for want of memory. Fewer of them take less: --set data.workers=1"
            ) from error
        of_user = theirs(error, model)
        if of_user is None:
            raise
        raise of_user from error


def is_out_of_memory(error: BaseException) -> bool:
    """By name: torch, which defines the error of a GPU, must not be imported here. On the CPU it
    raises a `RuntimeError`."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: " in str(error)
    )


@contextmanager
def calling(part: object, form: str) -> Iterator[None]:
    """Around one call of a user's part. `form` says how it is called; a call that fails before the
    part's own code runs, as with other parameters than it has, is answered with that.

    Raises `UserCodeError`.
    """
    try:
        yield
    except TypeError as error:
        # The first two frames are this one and the block's. What follows may be a library's that
        # passes the call on; a frame of the part's own means that it was reached.
        inner = [frame.f_code.co_filename for frame, _ in _frames(error.__traceback__)][2:]
        reached = any(not file.startswith(LIBRARIES) for file in inner)
        if reached or not is_brought(part):
            raise
        raise UserCodeError(
            f"{where_defined(part)}: it is called as {form}, and cannot be: {error}"
        ) from error


def brought_class(model: object) -> type | None:
    """The first class in a network that is neither rpat's nor a known library's."""
    modules = getattr(model, "modules", None)
    if modules is None:
        return None
    with suppress(Exception):  # a user's class may have another idea of `modules`
        for module in modules():
            if type(module).__module__.partition(".")[0] not in KNOWN:
                return type(module)
    return None


def is_brought(part: object) -> bool:
    """Was it defined outside of rpat and the libraries that it knows?"""
    return _definition(part).__module__.partition(".")[0] not in KNOWN


def where_defined(part: object) -> str:
    """File, line and name of the class or function that a part is, or is made by."""
    definition = _definition(part)
    name = getattr(definition, "__qualname__", type(definition).__name__)
    place = _class_place(definition)
    return f"{place}, {name}" if place else name


def _definition(part: Any) -> Any:
    while hasattr(part, "func") or hasattr(part, "made_by"):  # a partial, a transfer attack
        part = part.func if hasattr(part, "func") else part.made_by
    return part if inspect.isclass(part) or inspect.isroutine(part) else type(part)


def _class_place(definition: Any) -> str:
    with suppress(OSError, TypeError):
        return f"{inspect.getsourcefile(definition)}:{inspect.getsourcelines(definition)[1]}"
    return str(getattr(definition, "__module__", ""))


@contextmanager
def imported_apart() -> Iterator[None]:
    """Around the import of a user's file: what it prints goes to stderr, and what a script of its
    own may set (torch's default dtype and device, no gradients, the folder) ends with it."""
    folder, torch = Path.cwd(), sys.modules.get("torch")
    # As torch begins, if it is not imported yet: importing it here would cost every help page.
    dtype = torch.get_default_dtype() if torch else None
    device = torch.get_default_device() if torch else None
    grad = torch.is_grad_enabled() if torch else True
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.chdir(folder)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_default_dtype(dtype or torch.float32)
            torch.set_grad_enabled(grad)
            cpu = torch.device("cpu")
            if torch.get_default_device() != (device or cpu):
                torch.set_default_device(None if device in (None, cpu) else device)


@contextmanager
def speaking_on_stderr() -> Iterator[None]:
    """What is printed in this block, also by C code and by processes that it starts, goes to
    stderr: stdout is for results."""
    before = _onto_stderr()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if before is not None:
            os.dup2(before, 1)
            os.close(before)


def _onto_stderr() -> int | None:
    """Let file descriptor 1 be stderr; returns a copy of what it was, or None where stdout is not
    that: closed, or replaced by a notebook or a test."""
    try:
        if sys.stdout.fileno() != 1 or sys.stderr.fileno() != 2:
            return None
        sys.stdout.flush()
        before = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError, AttributeError):
        return None
    return before
