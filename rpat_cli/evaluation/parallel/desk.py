"""What travels between the processes that share an evaluation, and what a process does with it.

A bench (the model and its attacks) goes to every process once per evaluation, then come its chunks.
All of it travels as bytes made by cloudpickle: a model whose class or function was defined in a
notebook, or otherwise in `__main__`, exists in no module that another process could import, and
cloudpickle then sends the code itself. (A plugin's or model's file is run again over there: it may
enter more in our tables than what is sent.)
"""

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cloudpickle
import torch

from rpat_cli.errors import RpatError, UserCodeError
from rpat_cli.evaluation.parallel.chunks import ChunkResult, Task
from rpat_cli.user_code import ascribed


class Bench(Protocol):
    """A model and the attacks on it: it can be pickled, is opened on a device, and attacks one
    chunk after another there."""

    device: torch.device

    def open(self, device: torch.device) -> None: ...

    def attack(self, task: Task) -> ChunkResult: ...


class NotPortableError(RpatError):
    """What was to be shared cannot be handed to another process."""


@dataclass(frozen=True)
class _Failure:
    """An exception of another process, as text: not every exception can be pickled."""

    message: str
    kind: Literal["user", "user code", "bug", "not portable"]

    def error(self) -> Exception:
        kinds = {
            "user": RpatError,
            "user code": UserCodeError,
            "bug": RuntimeError,
            "not portable": NotPortableError,
        }
        return kinds[self.kind](self.message)


class Desk:
    """Where a process works for another one: `answer` takes a bench, or a chunk to attack with it.

    `device_of` maps the device that the bench was on in the other process to the one to use here.
    An exception is an answer, too: it is raised where the answer is read.
    """

    def __init__(self, device_of: Callable[[torch.device], torch.device]) -> None:
        self._device_of = device_of
        self._bench: Bench | None = None

    def answer(self, message: bytes) -> bytes:
        """Take what `packed` made there, and make what `content_of` reads there."""
        try:
            content = pickle.loads(message)
        except (Exception, SystemExit) as error:  # the model's own code runs here
            return pickle.dumps(_Failure(f"{type(error).__name__}: {error}", "not portable"))
        try:
            with ascribed():
                return pickle.dumps(self._answer(content))
        except UserCodeError as error:
            return pickle.dumps(_Failure(f"{error} (In a worker process.)", "user code"))
        except RpatError as error:
            return pickle.dumps(_Failure(str(error), "user"))
        except Exception:
            return pickle.dumps(_Failure(f"in a worker process: {traceback.format_exc()}", "bug"))

    def _answer(self, content: Any) -> Any:
        if isinstance(content, Task):
            assert self._bench is not None
            return self._bench.attack(content)
        content.open(self._device_of(content.device))
        self._bench = content
        return "ready"


def packed(content: Bench | Task) -> bytes:
    """A message for a `Desk`. Raises `NotPortableError`."""
    try:
        return bytes(cloudpickle.dumps(content))
    except Exception as error:  # whatever the pickling code of an object raises
        raise NotPortableError(f"{type(error).__name__}: {error}") from None


def content_of(answer: bytes) -> Any:
    """What a `Desk` answered. Raises the error that it met, if any."""
    content = pickle.loads(answer)
    if isinstance(content, _Failure):
        raise content.error()
    return content
