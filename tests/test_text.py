import pytest
from pydantic import TypeAdapter, ValidationError

from rpat_cli.text import Number, counted, remaining, show_number

NUMBER = TypeAdapter(Number)


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("1e-3", 0.001), (" 2 / 4 ", 0.5), ("0.1", 0.1), (3, 3.0), (0.25, 0.25)],
)
def test_reads_numbers_as_the_field_writes_them(text: object, value: float) -> None:
    assert NUMBER.validate_python(text) == value


@pytest.mark.parametrize("text", ["8/0", "abc", "", "1/2/3", "inf", "nan", True, None])
def test_refuses_what_is_no_finite_number(text: object) -> None:
    with pytest.raises(ValidationError):
        NUMBER.validate_python(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(8 / 255, "8/255"), (0.1, "0.1"), (0.5, "0.5"), (1.0, "1"), (2000 / 255, "2000/255")],
)
def test_shows_them_the_same_way(value: float, text: str) -> None:
    assert show_number(value) == text
    assert NUMBER.validate_python(text) == value


def test_a_forecast_is_never_nothing_before_the_end() -> None:
    assert [remaining(seconds) for seconds in (0.0, 0.4, 61.0)] == ["1.0 s", "1.0 s", "1 min 01 s"]


def test_one_is_not_several() -> None:
    shown = ["0 files", "1 file", "2 files", "1,600 files"]
    assert [counted(number, "file") for number in (0, 1, 2, 1600)] == shown
