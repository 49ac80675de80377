"""Reading a pickled checkpoint without running anything that it names.

`torch.load(weights_only=True)` refuses a file for a single `argparse.Namespace` or NumPy scalar
beside the weights. Here such objects become empty stand-ins: a file can name any class, none is
ever imported or called but those that rebuild tensors. What would have been a call of something
that is not known to be harmless is refused, so that nobody takes a file with a payload for a good
one.
"""

import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

HARMLESS = {
    *("argparse", "collections", "datetime", "decimal", "enum", "fractions", "pathlib", "uuid"),
    *("zoneinfo", "numpy", "omegaconf", "_codecs", "copyreg"),
    *("types.SimpleNamespace", "torch.Generator", "builtins.bytearray", "builtins.complex"),
    *("builtins.set", "builtins.frozenset", "builtins.range", "builtins.slice"),
    *("builtins.bytes", "builtins.int", "builtins.float", "builtins.str", "builtins.list"),
    *("builtins.dict", "builtins.tuple", "builtins.bool", "builtins.object"),
}
"""Packages and names of which a call makes a plain value: no call is made, but none is missed."""

PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""What torch.save, whose pickles Python 2 could read, calls modules."""

REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")


class RefusedError(pickle.UnpicklingError):
    """A file that names something whose call could have run code. `place`: what it names."""

    def __init__(self, place: str) -> None:
        super().__init__(f"GLOBAL {place}")
        self.place = place


class _StandInType(type):
    """The type of stand-ins: what pickle calls when it means to call the class or function."""

    place: str

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        package = cls.place.partition(".")[0]
        known = package in HARMLESS or cls.place in HARMLESS
        # Subclasses of OrderedDict are called without arguments, and filled afterwards.
        empty = not args and not kwargs and package not in sys.stdlib_module_names
        if not (known or empty):
            raise RefusedError(cls.place)
        return StandIn.__new__(cls)  # type: ignore[arg-type]


class StandIn(dict[Any, Any], metaclass=_StandInType):
    """In place of an object of any class. Items of a mapping are kept, everything else is not."""

    place = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "StandIn":  # noqa: ARG004
        if cls.place.startswith("torch.nn.modules."):
            raise RefusedError(cls.place)  # a whole model, which is its program and its weights
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Attributes are dropped."""

    def append(self, item: Any) -> None:
        """Items of lists are dropped."""

    extend = add = append

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:  # type: ignore[override]  # they may be keys and in sets
        return id(self)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = PYTHON_2.get(module, module)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in REBUILD:
            return getattr(torch._utils, name)
        if module == "torch" and name in ("Size", "device"):
            return getattr(torch, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return _StandInType(name, (StandIn,), {"place": f"{module}.{name}"})


def _load(file: Any, **settings: Any) -> Any:
    return _Unpickler(file, **settings).load()


def load_inert(path: Path) -> Any:
    """The content of a file of `torch.save`, on the CPU, with stand-ins for all objects that are
    no tensors or plain values.

    Raises `RefusedError`, also for TorchScript, which torch would run, and for damaged files what
    `torch.load` raises.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        # Asked of torch's own reader: another one might see other members in a forged archive. It
        # is given the file, since its path may hold bytes that are no text.
        if is_zip and "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records():
            raise RefusedError("TorchScript")
    reader = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="inert")
    return torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)
