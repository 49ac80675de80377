"""The plain tables behind METHODS, ATTACKS, MODELS, DATASETS, SCHEDULES: from names to objects.

An entry is an object, or a string "module:attribute" that is imported on first use. So a table can
be read at a glance, and listing its names (help pages, error messages) never imports torch.
"""

import re
import sys
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module, invalidate_caches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from pydantic import ConfigDict

from rpat_cli.errors import ConfigError, unknown
from rpat_cli.user_code import imported_apart

T = TypeVar("T")

SETTINGS_OF_ENTRIES = ConfigDict(extra="forbid", allow_inf_nan=False)
"""How pydantic checks the fields of the frozen dataclasses in these tables."""


@dataclass(frozen=True)
class Family(Generic[T]):
    """A row for many names, which differ in numbers and endings only.

    `form`: how help pages and messages write them, such as `wrn-DEPTH-WIDTH`. `pattern`: a regular
    expression with named groups for a whole name. `entry`: "module:attribute", a function of what
    the entries take, and of the keyword `name`. `settings`: from the groups to its other keywords;
    raises `ValueError`, with a sentence for the user, for a name that is none. `examples`: names to
    complete.
    """

    form: str
    pattern: str
    entry: str
    settings: Callable[[Mapping[str, str | None]], dict[str, Any]]
    examples: tuple[str, ...] = ()

    def matches(self, name: str) -> bool:
        """Whether the name is of this form, right or not."""
        return re.fullmatch(self.pattern, name) is not None

    def problem(self, name: str) -> str:
        """What is wrong with a name of this form; "" if nothing is."""
        match = re.fullmatch(self.pattern, name)
        assert match is not None
        try:
            self.settings(match.groupdict())
        except ValueError as error:
            return str(error)
        return ""

    def __getitem__(self, name: str) -> T:
        match = re.fullmatch(self.pattern, name)
        assert match is not None
        settings = self.settings(match.groupdict())
        return cast(T, partial(_imported(self.entry), name=name, **settings))


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to objects, imported lazily; `kind` is what messages call an entry.

    A name that is no row may be one of a family; iterating gives the rows only. `aliases`: what
    else rows are called; `hints`: what to do where somebody asks for a name that is no row. Raises
    `ConfigError` for an unknown name, with the allowed ones and the most similar.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, T | str],
        families: Sequence[Family[T]] = (),
        aliases: Mapping[str, str] | None = None,
        hints: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._entries: dict[str, T | str] = dict(entries)
        self._own = frozenset(entries)
        self.families = tuple(families)
        self.aliases = dict(aliases or {})
        self.hints = dict(hints or {})

    def __getitem__(self, name: str) -> T:
        name = self.aliases.get(name, name)
        if name not in self._entries:
            family = self._family_of(name)
            if family is None or family.problem(name):
                raise ConfigError(self.refusal(name, self.forms()))
            return family[name]
        entry = self._entries[name]
        if isinstance(entry, str):
            entry = cast(T, _imported(entry))
            self._entries[name] = entry
        return entry

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if self.aliases.get(name, name) in self._entries:
            return True
        family = self._family_of(name)
        return family is not None and not family.problem(name)

    def attributes(self) -> dict[str, str]:
        """The rows by the names of the objects themselves, such as those of classes; none is
        imported for this. Of several the first keeps the name, so that a plugin takes none."""
        return {_attribute_of(entry): name for name, entry in reversed(self._entries.items())}

    def source(self, name: str) -> Hashable:
        """What makes the entry of a name: equal as long as the name means the same."""
        family = None if name in self._entries else self._family_of(name)
        return family.entry if family else id(self[name])

    def forms(self) -> list[str]:
        """All names, where a family is one of them: for help pages and messages."""
        return [*self, *(family.form for family in self.families)]

    def examples(self) -> list[str]:
        """All rows, and some names of each family: for a shell to complete."""
        return [*self, *(name for family in self.families for name in family.examples)]

    def refusal(self, name: str, allowed: Sequence[str]) -> str:
        """The message for a name that is not in the table."""
        family = self._family_of(name)
        problem = family.problem(name) if family else ""
        if problem:
            return f"unknown {self.kind} {name!r}: {problem}."
        if hint := self.hints.get(_folded(name)):
            return f"{name!r} is no {self.kind}. {hint}"
        if re.search(r"\.py(:\w*)?$", name):  # as `rpat eval` takes models
            return (
                f"{name!r} is a file, where a name is wanted. To use your own {self.kind}, "
                "add it under a name in a plugin: --plugin FILE.py (docs/tutorials/your-own.md)."
            )
        return unknown(self.kind, name, allowed, names=self.examples())

    def _family_of(self, name: str) -> Family[T] | None:
        return next((family for family in self.families if family.matches(name)), None)

    def spelled(self, name: str) -> str:
        """The name as it is written in the table: case does not matter to people, nor whether the
        words of a name are joined by "_" or "-". A name that is not there stays as it is."""
        written = as_written(name, [*self, *self.aliases])
        if written not in self and _folded(name) in self:
            written = _folded(name)
        return self.aliases.get(written, written)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def is_added(self, name: str) -> bool:
        """Whether an entry is a user's, and not rpat's own."""
        return name in self._entries and name not in self._own

    def add(self, name: str, entry: T | str) -> None:
        """Add an entry. Raises `ConfigError` if the name is taken: nothing is replaced silently."""
        if name in self._entries:
            raise ConfigError(
                f"the {self.kind} {name!r} is registered already; choose another name."
            )
        self._entries[name] = entry


def _attribute_of(entry: Any) -> str:
    if isinstance(entry, str):
        return entry.partition(":")[2]
    return str(getattr(entry, "__name__", ""))


def _imported(entry: str) -> Any:
    """What "module:attribute" names."""
    module, _, attribute = entry.partition(":")
    return getattr(import_module(module), attribute)


def as_written(name: str, names: Iterable[str]) -> str:
    """The one of `names` that differs from `name` in case, "_" and "-" only; `name` itself if there
    is none, or more than one."""
    names = list(names)
    alike = [other for other in names if _folded(other) == _folded(name)]
    return alike[0] if name not in names and len(alike) == 1 else name


def _folded(name: str) -> str:
    return name.strip().casefold().replace("_", "-")


_files: dict[str, Path] = {}


def import_file(path: Path, name: str) -> ModuleType:
    """Run a user's Python file as a module of this name. The file may import others in its folder.
    What it raises goes to the caller, and leaves no module; what it prints goes to stderr, and what
    it sets in torch is set back."""
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up here
    _open_folder(path.parent)
    try:
        with imported_apart():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _files[name] = path
    return module


_folders: list[Path] = []
"""The folders of the user's files, that of the latest one first: with them `sys.path` ends."""


def _open_folder(folder: Path) -> None:
    """Let the files in a folder be imported by their names.

    The folder comes behind all libraries, so that no file in it hides one, and before the folders
    of earlier files: what those have imported under a name may be another file here.
    """
    others = [other for other in _folders if other != folder]
    for name in _imported_from(others):
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir():
            del sys.modules[name]
    ours = [str(known) for known in _folders]
    sys.path[:] = [entry for entry in sys.path if entry not in ours]
    if str(folder) not in sys.path:  # otherwise the user has put it where it should be
        others = [folder, *others]
    _folders[:] = others
    sys.path += [str(known) for known in _folders]
    invalidate_caches()  # the file may be a moment old


def _imported_from(folders: Collection[Path]) -> list[str]:
    """The modules, other than the users' files themselves, that were imported from these
    folders."""
    names = []
    for name, module in sys.modules.items():
        file = getattr(module, "__file__", None)
        path = Path(file) if file else None
        if path is None or "." in name or name in _files:
            continue
        if path.name == "__init__.py":
            path = path.parent
        if path.parent in folders:
            names.append(name)
    return names


def imported_files() -> dict[str, Path]:
    """The user's files that this process runs, by module name: what is pickled here and defined
    there needs them in another process too."""
    return {name: path for name, path in _files.items() if name in sys.modules}
