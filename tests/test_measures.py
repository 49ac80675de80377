"""The size and density of the code, measured: what makes a reader stop is counted, and has a bound.

Run this file as a script to print all numbers, and every place that is above a bound:
`python tests/test_measures.py`.
"""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).parent.parent / "rpat_cli"

ROOT_FILES = 10  # modules beside the folders: what one sees first
FILE_LINES = 350  # all lines; one idea seldom needs more
FUNCTION_LINES = 50  # what fits on a screen; the docstring does not count
BRANCHES = 15  # ways through a function that a reader must hold in mind, and a test must take
NESTED_COMPREHENSIONS = 1.0  # in 1,000 lines: these are read inside out
COLUMNS = 100  # comments for the linters and the type checker at the end do not count

PRAGMA = re.compile(r"  # (noqa|type: ignore).*")

Function = ast.FunctionDef | ast.AsyncFunctionDef
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DECISIONS = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)


@cache
def sources() -> dict[str, str]:
    """Every module of the package, by its path below it."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {file.relative_to(PACKAGE).as_posix(): file.read_text("utf-8") for file in files}


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(text) for name, text in sources().items()}


def functions(tree: ast.AST) -> Iterator[Function]:
    """All functions and methods, those inside others too."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions and classes in it, which count for
    themselves."""
    todo = list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            todo += ast.iter_child_nodes(node)


def branches(function: Function) -> int:
    """Places at which the way through a function forks: statements that decide or repeat, every
    ternary, `and` and `or`, `for` and `if` of a comprehension, `case` and `except`."""
    count = 0
    for node in own_nodes(function):
        if isinstance(node, DECISIONS):
            count += 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def lines(function: Function) -> int:
    """From `def` to the last line, without the docstring."""
    assert function.end_lineno is not None
    length = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        assert first.end_lineno is not None
        length -= first.end_lineno - first.lineno + 1
    return length


def is_nested(node: ast.AST) -> bool:
    """A comprehension with two `for`s, or with another one inside it."""
    if not isinstance(node, COMPREHENSIONS):
        return False
    inner = (other for other in ast.walk(node) if other is not node)
    return len(node.generators) > 1 or any(isinstance(other, COMPREHENSIONS) for other in inner)


def nested_comprehensions() -> list[str]:
    found = []
    for name, tree in trees().items():
        found += [f"{name}:{node.lineno}" for node in ast.walk(tree) if is_nested(node)]
    return found


def nested_ternaries() -> list[str]:
    """`a if b else c if d else e`, and the like."""
    found = []
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.IfExp):
                parts = (node.body, node.test, node.orelse)
                if any(isinstance(part, ast.IfExp) for part in parts):
                    found.append(f"{name}:{node.lineno}")
    return found


def functions_above(bound: int, measure: Callable[[Function], int]) -> list[str]:
    found = []
    for name, tree in trees().items():
        for function in functions(tree):
            if (value := measure(function)) > bound:
                found.append(f"{name}:{function.lineno} {function.name}: {value}")
    return found


def files_above(bound: int) -> list[str]:
    lengths = {name: len(text.splitlines()) for name, text in sources().items()}
    return [f"{name}: {length}" for name, length in lengths.items() if length > bound]


def long_lines() -> list[str]:
    found = []
    for name, text in sources().items():
        for number, line in enumerate(text.splitlines(), start=1):
            if len(PRAGMA.sub("", line)) > COLUMNS:
                found.append(f"{name}:{number}")
    return found


def root_files() -> list[str]:
    return [name for name in sources() if "/" not in name]


def test_few_modules_lie_at_the_root() -> None:
    assert len(root_files()) <= ROOT_FILES, root_files()


def test_no_file_is_long() -> None:
    assert files_above(FILE_LINES) == []


def test_no_function_is_long() -> None:
    assert functions_above(FUNCTION_LINES, lines) == []


def test_no_function_has_many_branches() -> None:
    assert functions_above(BRANCHES, branches) == []


def test_hardly_any_comprehension_is_nested() -> None:
    total = sum(len(text.splitlines()) for text in sources().values())
    found = nested_comprehensions()
    assert len(found) / total * 1000 < NESTED_COMPREHENSIONS, found


def test_no_ternary_is_nested() -> None:
    assert nested_ternaries() == []


def test_no_line_is_long() -> None:
    assert long_lines() == []


def function(text: str) -> Function:
    return next(functions(ast.parse(text)))


def test_what_counts_as_a_branch_and_as_a_line() -> None:
    """The measures on a function small enough to count by hand."""
    found = function(
        "def f(x):\n"
        '    """One.\n\n    Two."""\n'
        "    if x and x.a or x.b:\n"  # 1 for the if, 2 for the words
        "        return [y for y in x if y]\n"  # 1 for the for, 1 for the if
        "    def inner():\n"
        "        while True: pass\n"  # counts for inner
        "    return inner if x else None\n"  # 1
    )
    assert branches(found) == 6
    assert lines(found) == 6
    for text, nested in {
        "[a for b in c for a in b]": True,
        "[[a for a in b] for b in c]": True,
        "[a for a in f(b) if a]": False,
    }.items():
        assert is_nested(ast.parse(text, mode="eval").body) == nested


if __name__ == "__main__":
    everything = [lines(each) for tree in trees().values() for each in functions(tree)]
    total = sum(len(text.splitlines()) for text in sources().values())
    print(f"{len(sources())} files, {total} lines, {len(everything)} functions")
    print(f"median function: {median(everything)} lines")
    for title, found in {
        f"files at the root (at most {ROOT_FILES})": root_files(),
        f"files above {FILE_LINES} lines": files_above(FILE_LINES),
        f"functions above {FUNCTION_LINES} lines": functions_above(FUNCTION_LINES, lines),
        f"functions above {BRANCHES} branches": functions_above(BRANCHES, branches),
        f"nested comprehensions (below {total * NESTED_COMPREHENSIONS / 1000:.0f})": (
            nested_comprehensions()
        ),
        "nested ternaries": nested_ternaries(),
        f"lines above {COLUMNS} columns": long_lines(),
    }.items():
        print(f"\n{title}: {len(found)}")
        for place in found:
            print(f"  {place}")
