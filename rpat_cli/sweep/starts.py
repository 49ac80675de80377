"""What the trials of a sweep begin or learn from: the same runs in every call of the sweep, and if
the file says so another one for each seed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from rpat_cli.errors import Problem, RunFolderError
from rpat_cli.loading.robustbench import is_entry
from rpat_cli.loading.start_name import run_meant
from rpat_cli.recipe.layers import Layer
from rpat_cli.recipe.start import SEED
from rpat_cli.recipe.trust import code_of_target
from rpat_cli.recipe.yaml_lines import KeyPath
from rpat_cli.records.files import write_whole
from rpat_cli.records.regular import read_regular

FILE = "starts.json"

PER_SEED = ("init", "method")
"""Keys of a recipe in which `{seed}` is the seed of the trial; of the method any setting, which is
where it names the networks that it learns from."""


@dataclass
class RunNames:
    """What `last`, `best` and the names of runs mean in a sweep: what they meant when a trial first
    began with them. A trial is named by its recipe, so another meaning would make other trials.

    `kept` is in the folder of the sweep.
    """

    kept: Mapping[str, str] = field(default_factory=dict)
    _known: dict[str, str] = field(init=False, default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "RunNames":
        """Those that the sweep in `folder` has kept. Raises `RunFolderError` if they are
        damaged."""
        file = folder / FILE
        try:
            kept = json.loads(read_regular(file))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, RecursionError):
            kept = None
        if not isinstance(kept, dict) or not all(map(_is_path, kept.values())):
            raise RunFolderError(
                f"{file} cannot be read: it holds what last, best and the names of runs mean in "
                "this sweep. Delete it to let them mean what they do now; trials that began with "
                "other runs are then trained anew."
            )
        return cls(kept)

    def __call__(self, text: str) -> str:
        """The path of the run; what names none stays. Raises what `run_meant` does."""
        if text not in self._known:
            self._known[text] = self.kept.get(text) or run_meant(text)
        return self._known[text]

    def keep(self, folder: Path) -> None:
        """Write what has been asked for into the folder, if it is new there. Raises
        `RunFolderError`."""
        asked = {text: path for text, path in self._known.items() if path != text}
        if asked.keys() <= self.kept.keys():
            return
        self.kept = {**asked, **self.kept}
        write_whole(folder / FILE, json.dumps(self.kept, indent=1) + "\n")


def _is_path(value: object) -> bool:
    """Whether it can be the path of a run, and nothing else that a recipe may name: the folder may
    come from a stranger."""
    if not isinstance(value, str) or not value:
        return False
    return not is_entry(value) and not code_of_target(value)


# ---- one for each seed


def is_per_seed(layers: Sequence[Layer]) -> bool:
    """Whether the recipe of these layers begins or learns from another run for each seed."""
    paths = chain.from_iterable(_places(layer.values) for layer in layers)
    return any(path[0] in PER_SEED for path in paths)


def for_seed(layers: Sequence[Layer], seed: int) -> list[Layer]:
    """The layers of the trial with this seed."""
    filled = []
    for layer in layers:
        mine = {key: layer.values[key] for key in PER_SEED if key in layer.values}
        values = {**layer.values, **_filled(mine, str(seed))}
        filled.append(replace(layer, values=values))
    return [*filled, Layer("seeds", {"seed": seed})]


def misplaced(layers: Sequence[Layer]) -> Iterator[Problem]:
    """The other keys that have `{seed}` in their values."""
    for layer in layers:
        for path in _places(layer.values):
            if path[0] not in PER_SEED:
                message = f"{SEED} is replaced in init and in the method's settings only."
                hint = 'Example: init: "runs/l2-{seed}", or method.teacher.'
                yield Problem(".".join(path), message, layer.origin(path), hint)


def _filled(value: Any, seed: str) -> Any:
    if isinstance(value, str):
        return value.replace(SEED, seed)
    if isinstance(value, Mapping):
        return {key: _filled(each, seed) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, seed) for each in value]
    return value


def _places(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Where `{seed}` is."""
    if isinstance(value, str) and SEED in value:
        yield path
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _places(each, (*path, str(key)))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _places(each, (*path, str(number)))
