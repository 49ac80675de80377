"""`--track csv`: the figures as tables that every program reads."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rpat_cli.records.files import append_durably, write_whole
from rpat_cli.records.regular import read_regular
from rpat_cli.tracking.base import Tracked, Tracker, Values

EPOCH = "epoch"


class CsvFiles(Tracker):
    """`metrics.csv`: a row for each epoch, a column for each number of `metrics.jsonl`, empty in
    epochs that lack it. `results.csv`: a row for each figure on the test set, the newest."""

    rewinds = True

    def start(self, run: Tracked) -> None:
        self.metrics = run.folder / "metrics.csv"
        self.test = run.folder / "results.csv"
        # A row that a crash cut short is of an epoch after the last checkpoint, too.
        rows = [row for row in _read(self.metrics) if _epoch(row) <= run.epochs]
        self.columns = list(dict.fromkeys(name for row in rows for name in row)) or [EPOCH]
        write_whole(self.metrics, _table(self.columns, rows))

    def log(self, epoch: int, values: Values) -> None:
        row = {EPOCH: epoch, **values}
        new = [name for name in row if name not in self.columns]
        if not new:
            append_durably(self.metrics, _lines(self.columns, [row]))
            return
        # With one more column the rows before are other lines.
        rows: list[Mapping[str, Any]] = [*_read(self.metrics), row]
        self.columns += new
        write_whole(self.metrics, _table(self.columns, rows))

    def results(self, epoch: int, values: Values, files: Sequence[Path]) -> None:  # noqa: ARG002
        known = _read(self.test)
        rows: dict[str, Mapping[str, Any]] = {
            row["figure"]: row for row in known if "figure" in row
        }
        for name, value in values.items():
            rows[name] = {"figure": name, "value": value, EPOCH: epoch}
        write_whole(self.test, _table(["figure", "value", EPOCH], rows.values()))


def _read(path: Path) -> list[dict[str, str]]:
    try:
        text = read_regular(path).decode()
    except FileNotFoundError:
        return []
    return [dict(row) for row in csv.DictReader(io.StringIO(text)) if None not in row.values()]


def _epoch(row: Mapping[str, str]) -> float:
    text = row.get(EPOCH, "")
    return int(text) if text.isdecimal() else float("inf")


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    return _lines(columns, [dict(zip(columns, columns, strict=True)), *rows])


def _lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()
