"""Raw tables as CSV, one dataclass a table, and what is written into pages between markers."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

DATA = Path(__file__).parent / "data"

R = TypeVar("R")


def write_csv(rows: Sequence[Any], path: Path) -> None:
    """At least one row, all of one dataclass."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        names = [each.name for each in dataclasses.fields(rows[0])]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _short(getattr(row, name)) for name in names})


def _short(value: Any) -> Any:
    """Numbers with ten digits: enough for a fraction of 10,000 images, and the same everywhere."""
    return f"{value:.10g}" if isinstance(value, float) else value


def read_csv(path: Path, kind: type[R]) -> list[R]:
    """What `write_csv` wrote; an empty cell of a column that may be None is None."""
    hints = get_type_hints(kind)
    with path.open(newline="", encoding="utf-8") as file:
        return [
            kind(**{name: _value(text, hints[name]) for name, text in line.items()})
            for line in csv.DictReader(file)
        ]


def _value(text: str, hint: Any) -> Any:
    if hint == float | None:
        return float(text) if text else None
    return hint(text)


def between(text: str, marker: str, content: str) -> str:
    """`text` with `content` between `<!-- marker -->` and `<!-- /marker -->`."""
    head, start, rest = text.partition(f"<!-- {marker} -->\n")
    _, end, tail = rest.partition(f"<!-- /{marker} -->")
    if not start or not end:
        raise ValueError(f"the page has no markers <!-- {marker} --> and <!-- /{marker} -->")
    return f"{head}{start}{content}\n{end}{tail}"
