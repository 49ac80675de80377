"""The shape of the house: imports run one way, what we import is declared, and nothing private
slips into the repo."""

import ast
import re
import sys
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rpat_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms of the house (folders, and modules at the root) from the foundations up. A room may
# import those in the lines before its own, and nothing else: not its neighbors in the same line,
# and none of the lines after it.
ORDER = (
    ("errors", "version", "passes", "text", "hardware"),
    ("user_code", "signals"),
    ("registry",),
    ("records",),
    ("attacks", "data", "models"),
    ("methods", "evaluation"),
    ("engine", "diagnostics"),
    ("tracking",),
    ("recipe",),
    ("loading",),
    ("reports",),
    ("runs",),
    ("sweep", "benchmark", "export"),  # each calls what is above, and none needs another
    ("cli",),
    ("calls",),  # from Python; the names of its keywords are those of the command line's options
    ("api",),  # the package `rpat`: names only
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
DOORS = {
    "__init__",
    "__main__",
}  # the public API and the console entry: they import from anywhere, nobody imports them

# The engine may know what a method, an attack and a split of data are, but never one of them by
# name.
ENGINE_SEES = {"attacks.base", "methods.base", "data.base", "data.order"} | {
    f"attacks.{how}"
    for how in ("compiling", "folding", "graphs", "side_effects")  # attacks are computed
}

IMPORT_TO_DISTRIBUTION = {
    "huggingface_hub": "huggingface-hub",
    "mlflow": "mlflow-skinny",
    "yaml": "pyyaml",
    "PIL": "pillow",
}
OPTIONAL = {"autoattack"}  # accepted in place of pyautoattack where it is installed


def modules(package: Path) -> dict[str, Path]:
    """The dotted name of every module below a package, such as `rpat_cli.attacks.pgd`, and its
    file."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: Container[str] = ()) -> list[str]:
    """Every module that a file imports, wherever in it, lazily or not; what only type checkers see
    does not count.

    `known` are names of modules: with them, `from rpat_cli.attacks import pgd` is an import of
    `rpat_cli.attacks.pgd`.
    """
    found: list[str] = []
    for node in _seen_at_run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            inner = [f"{module}.{name.name}" for name in node.names]
            found += [name if name in known else module for name in inner]
    return found


def _seen_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = node.orelse
    for child in children:
        yield from _seen_at_run_time(child)


def graph(package: Path) -> dict[str, set[str]]:
    """Who imports whom inside a package, by dotted names."""
    files = modules(package)
    return {
        name: {other for other in imports(path, files) if other in files and other != name}
        for name, path in files.items()
    }


MODULE_IN_TEXT = re.compile(r"(rpat_cli(?:\.\w+)+)(:\w+)?")


def graph_of_tables(package: Path) -> dict[str, set[str]]:
    """The modules that the files of a package name in texts: the tables of a registry do, as
    "rpat_cli.attacks.pgd:PGD".

    A registry imports what is named when it is first asked for it: an import like any other, as far
    as the order goes. It closes no circle: by then the table itself has been imported.
    """
    found: dict[str, set[str]] = {}
    for name, path in modules(package).items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        matches = [MODULE_IN_TEXT.fullmatch(text) for text in texts if isinstance(text, str)]
        found[name] = {match[1] for match in matches if match}
    return found


def room(name: str) -> str:
    """`attacks` of `rpat_cli.attacks.pgd`, and `__init__` of the package itself."""
    return [*name.split("."), "__init__"][1]


def against_the_order(imported: Mapping[str, Container[str]]) -> list[str]:
    """The imports that run from a lower room to a higher one, or between rooms of one line."""
    wrong = []
    for name, others in imported.items():
        here = room(name)
        for other in sorted(others):
            there = room(other)
            if there in DOORS:
                wrong.append(f"{name} imports {other}, which only users do")
            elif here not in DOORS and here != there and LEVEL[there] >= LEVEL[here]:
                wrong.append(f"{name} imports {other}: {here} comes before {there}")
    return wrong


def circles(imported: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of files that import one another in a circle (strongly connected components of more
    than one)."""
    sorter = [set(names) for names in _components(imported)]
    return [sorted(names) for names in sorter if len(names) > 1]


def _components(imported: Mapping[str, Iterable[str]]) -> Iterator[frozenset[str]]:
    reachable = {name: _reachable(name, imported) for name in imported}
    seen: set[str] = set()
    for name in imported:
        if name not in seen:
            members = frozenset(
                {name} | {other for other in reachable[name] if name in reachable[other]}
            )
            seen |= members
            yield members


def _reachable(name: str, imported: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(imported[name])
    while todo:
        other = todo.pop()
        if other not in found:
            found.add(other)
            todo += imported[other]
    return found


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room(name) for name in modules(PACKAGE)} == set(LEVEL) | DOORS


def test_imports_run_one_way() -> None:
    assert against_the_order(graph(PACKAGE)) == []


def test_tables_name_nothing_that_comes_after_them() -> None:
    named = graph_of_tables(PACKAGE)
    assert against_the_order(named) == []
    assert "rpat_cli.methods.trades" in named["rpat_cli.methods"]
    assert set().union(*named.values()) <= set(modules(PACKAGE))


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles(graph(PACKAGE)) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("attacks/pgd.py", "from rpat_cli.engine import loop"),  # a module of a higher room
        ("attacks/pgd.py", "from rpat_cli.data.base import Split"),  # a neighbor
        ("errors.py", "def late():\n    from rpat_cli.records.lock import locked"),  # lazily
        ("records/lock.py", "from rpat_cli import train"),  # the public API
    ],
)
def test_an_import_against_the_order_is_found(tmp_path: Path, file: str, line: str) -> None:
    house = copytree(
        PACKAGE, tmp_path / "rpat_cli", ignore=ignore_patterns("*.yaml", "*.npz", "__pycache__")
    )
    with (house / file).open("a") as text:
        text.write(f"\n{line}\n")
    [found] = against_the_order(graph(house))
    assert found.startswith(f"rpat_cli.{file.removesuffix('.py').replace('/', '.')} imports")


def test_a_circle_is_found(tmp_path: Path) -> None:
    house = copytree(
        PACKAGE, tmp_path / "rpat_cli", ignore=ignore_patterns("*.yaml", "*.npz", "__pycache__")
    )
    with (house / "attacks/threat.py").open("a") as text:
        text.write("\ndef late():\n    from rpat_cli.attacks import pgd\n")
    found = set().union(*circles(graph(house)))
    assert {"rpat_cli.attacks.threat", "rpat_cli.attacks.pgd"} <= found


def test_what_only_type_checkers_import_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        "if TYPE_CHECKING:\n    from rpat_cli.engine import loop\nelse:\n    import re\nimport os\n"
    )
    assert imports(file) == ["re", "os"]


def test_the_engine_knows_no_method_attack_or_data_set() -> None:
    files = modules(PACKAGE)
    for name, path in files.items():
        if room(name) == "engine":
            seen = {other.removeprefix("rpat_cli.") for other in imports(path, files)}
            by_name = {
                other for other in seen if other.split(".")[0] in ("attacks", "methods", "data")
            }
            assert by_name <= ENGINE_SEES, f"{path}: {by_name - ENGINE_SEES}"


def test_the_engine_never_asks_for_a_method_by_name() -> None:
    from rpat_cli.methods import METHODS

    for path in (PACKAGE / "engine").glob("*.py"):
        texts = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant)
        }
        assert not texts & set(METHODS), path


# About some methods, which they name; a new method needs no line in them.
NAMING_METHODS = {
    "rpat_cli.benchmark.published",  # the order of work of the published code
    "rpat_cli.sweep.trial_name",  # settings that came after the first sweep folders
    "rpat_cli.calls.losses",  # rpat.losses.trades(model, x, y) and a few others
    "rpat_cli.api.rpat.losses",
}


def plain_texts(path: Path) -> set[str]:
    """The texts of a file that are values, and no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if not isinstance(node, ast.Expr)]
    inner = [child for node in nodes for child in ast.iter_child_nodes(node)]
    return {node.value for node in inner if isinstance(node, ast.Constant) and is_text(node)}


def is_text(node: ast.Constant) -> bool:
    return isinstance(node.value, str)


def test_a_method_is_one_file_and_one_row() -> None:
    """No other part knows it by its name: neither its module, nor its key, which may be that of an
    attack, a suite or a regularizer, too."""
    from rpat_cli.attacks import ATTACKS
    from rpat_cli.evaluation.suite import SUITES
    from rpat_cli.methods import METHODS, REGULARIZERS

    files, imported = modules(PACKAGE), graph(PACKAGE)
    named = graph_of_tables(PACKAGE)
    of_methods = named["rpat_cli.methods"]
    assert "rpat_cli.methods.trades" in of_methods
    own_keys = set(METHODS) - {*ATTACKS, *SUITES, *REGULARIZERS}
    for name, path in files.items():
        if room(name) == "methods" or name in NAMING_METHODS:
            continue
        assert not (imported[name] | named[name]) & of_methods, name
        assert not plain_texts(path) & own_keys, name


def declared() -> tuple[set[str], set[str]]:
    """The distributions that pyproject asks for: of every user, and of users of extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [spec for specs in project["optional-dependencies"].values() for spec in specs]
    return {_name(spec) for spec in project["dependencies"]}, {_name(spec) for spec in extras}


def _name(spec: str) -> str:
    return re.split(r"[<>=!~\[ ;]", spec)[0].lower()


def third_party() -> set[str]:
    roots = {name.split(".")[0] for path in MODULES for name in imports(path)}
    own_or_standard = {"rpat_cli", *sys.stdlib_module_names}
    return {IMPORT_TO_DISTRIBUTION.get(root, root) for root in roots - own_or_standard - OPTIONAL}


def test_what_is_imported_is_declared() -> None:
    core, extras = declared()
    assert third_party() <= core | extras


def test_the_conda_file_is_in_step_with_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "RPAT.yaml").read_text())["dependencies"]
    [pip] = [item["pip"] for item in conda if isinstance(item, dict)]
    assert set(project["dependencies"]) <= set(pip)
    assert any(str(item).startswith(f"python{project['requires-python']},") for item in conda)
    assert "-e .[dev]" in pip


def test_no_version_is_pinned_in_either_file() -> None:
    for name in ("pyproject.toml", "RPAT.yaml"):
        assert "==" not in (ROOT / name).read_text()


def test_every_module_says_what_it_is() -> None:
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


# Files that come with rpat, that the operating system provides, or that the caller has found to be
# regular before.
READS_ITSELF = {
    "records/regular.py",
    "records/files.py",
    "records/file_kinds.py",
    "loading/inert.py",
    "recipe/shipped/__init__.py",
    "cli/launch.py",
    "cli/recipes.py",
    "cli/session.py",
    "cli/torchrun.py",
    "benchmark/race.py",
    "data/fashion.py",
    "data/images.py",
    "data/splits.py",
    "hardware.py",
    "runs/environment.py",
    "runs/launchers.py",
    "runs/threads.py",
}


def test_files_are_read_through_one_door() -> None:
    """`read_regular` waits for no pipe, and has one kind of error."""
    reading = re.compile(r"\.read_text\(|\.read_bytes\(|\bopen\(.*\"r?b?\+?\"|\.open\(\)")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if reading.search(path.read_text(encoding="utf-8"))
    }
    assert found <= READS_ITSELF, "read with rpat_cli.records.regular.read_regular"
