"""Labels in the tables of a sweep: shown as they are, whatever they hold, and never markup."""

import csv
import io
import json

import pytest

from rpat_cli.sweep.intervals import Stat
from rpat_cli.sweep.table import SweepTable, TableRow, to_csv, to_json, to_latex, to_markdown

LABELS = [
    "a|b",
    "a\\|b",
    "a\nb",
    "a\r\nb | c",
    "a\u2028b",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a & b",
    "`code`",
    "*bold*",
    "[here](javascript:alert(1))",
    "\\",
    "\\input{x}",
    "a\n\\input{x}",
    "50 % of #1 for $5 ~ ^",
]


def table(label: str) -> SweepTable:
    row = TableRow(label, "best", 1, 1, {label: Stat.of([0.5])}, label, {})
    return SweepTable("t", ("clean", label), (row,), {label: f"```\n{label}"}, (label,))


@pytest.mark.parametrize("label", LABELS)
def test_a_label_stays_in_its_cell(label: str) -> None:
    text = to_markdown(table(label))
    head, rule, row, *_ = text.splitlines()
    assert head.replace("\\\\", "").replace("\\|", "").count("|") == 6
    assert rule.count("|") == 6
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 6
    outside = text.split("````")[0]
    assert "<script" not in outside
    assert "<img" not in outside
    assert "](j" not in outside
    assert text.rstrip().endswith("````")


@pytest.mark.parametrize("label", LABELS)
def test_latex_holds_no_command_of_a_label(label: str) -> None:
    lines = to_latex(table(label)).splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("% ")
    assert not any("\\input" in line for line in lines[1:])


@pytest.mark.parametrize("label", LABELS)
def test_data_formats_give_the_label_back(label: str) -> None:
    assert json.loads(to_json(table(label)))["rows"][0]["label"] == label
    lines = list(csv.DictReader(io.StringIO(to_csv(table(label)), newline="")))
    assert {line["variant"] for line in lines} == {label}
