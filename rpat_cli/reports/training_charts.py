"""The curves of a training; and of a second one, the baseline, laid below them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rpat_cli.records.metrics import AVERAGED
from rpat_cli.reports.plots import Chart, Point, Series, line_chart
from rpat_cli.text import percent

SMALL_TERM = 0.1
"""A loss term that stays below this share of the largest is drawn in a chart of its own."""

Records = Sequence[Mapping[str, Any]]
"""Those of metrics.jsonl: one for each epoch."""


class Trained(Protocol):
    """What is drawn of a run: see `rpat_cli.reports.report.Report`."""

    @property
    def epochs(self) -> Records: ...
    @property
    def best_epoch(self) -> int | None: ...


@dataclass(frozen=True)
class Curves:
    """A `Trained` without the rest of a report."""

    epochs: Records
    best_epoch: int | None


def training_charts(
    run: Trained, baseline: Trained | None = None, names: tuple[str, str] = ("this run", "baseline")
) -> list[Chart]:
    """Accuracies, loss terms and learning rate by epoch; a chart without data is left out.

    With a `baseline` validation and training have charts of their own, and `names` say in their
    legends whose a line is.
    """

    def drawn(series_of: Callable[[Records], Sequence[Series]]) -> list[Series]:
        own = series_of(run.epochs)
        if baseline is None:
            return list(own)
        own = [replace(each, of=names[0]) for each in own]
        other = [replace(each, of=names[1], under=True) for each in series_of(baseline.epochs)]
        order = list(dict.fromkeys(each.name for each in (*own, *other)))
        return sorted((*own, *other), key=lambda each: order.index(each.name))

    def chart(title: str, series: Sequence[Series], show: Callable[[float], str]) -> Chart | None:
        marked = "best" if baseline is None else f"best of {names[0]}"
        in_percent = (0.0, 1.0) if show is _percent else None
        return line_chart(
            title, series, show, mark=run.best_epoch, mark_name=marked, y_range=in_percent
        )

    large, small = _by_size(drawn(_loss_terms))
    if baseline is None:
        both = [*drawn(_validation), *drawn(_training)]
        accuracies = [chart("Accuracy in percent", both, _percent)]
    else:
        accuracies = [
            chart("Validation accuracy in percent", drawn(_validation), _percent),
            chart("Training accuracy in percent", drawn(_training), _percent),
        ]
    charts = [
        *accuracies,
        chart("Loss terms", large, _short),
        chart("Small loss terms", small, _short),
        chart("Learning rate", drawn(_learning_rate), _short),
    ]
    return [each for each in charts if each]


def _validation(epochs: Records) -> list[Series]:
    return [
        Series("validation clean", _points(epochs, "validation", "clean_acc")),
        Series("validation robust", _points(epochs, "validation", "robust_acc")),
        Series("averaged robust", _points(epochs, "validation", f"robust_acc{AVERAGED}")),
    ]


def _training(epochs: Records) -> list[Series]:
    return [
        Series("training robust", _points(epochs, "train", "robust_acc")),
        Series("training clean", _points(epochs, "train", "clean_acc")),
    ]


def _learning_rate(epochs: Records) -> list[Series]:
    rates = tuple((float(record["epoch"]), float(record["lr"])) for record in epochs)
    return [Series("learning rate", rates)]


def _loss_terms(epochs: Records) -> list[Series]:
    """All terms by name, after their sum; a single term is the loss, and needs no sum."""
    names: dict[str, None] = {}
    for record in epochs:
        names |= dict.fromkeys(record["train"])
    terms = [name for name in names if name != "loss" and not name.endswith("_acc")]
    total = [Series("sum", _points(epochs, "train", "loss"))] if len(terms) > 1 else []
    return [*total, *(Series(name, _points(epochs, "train", name)) for name in terms)]


def _by_size(terms: Sequence[Series]) -> tuple[list[Series], list[Series]]:
    """Those that can be seen on the scale of the largest, and those that are so small that they
    need their own, as weighted regularizers often do."""
    peaks: dict[str, float] = {}
    for term in terms:
        heights = [abs(y) for _, y in term.points]
        peaks[term.name] = max([peaks.get(term.name, 0.0), *heights])
    limit = SMALL_TERM * max(peaks.values(), default=0.0)
    large = [term for term in terms if peaks[term.name] >= limit]
    return large, [term for term in terms if peaks[term.name] < limit]


def _points(epochs: Records, part: str, name: str) -> tuple[Point, ...]:
    return tuple(_found(epochs, part, name))


def _found(epochs: Records, part: str, name: str) -> Iterator[Point]:
    for record in epochs:
        values = record.get(part) or {}
        if isinstance(values, Mapping) and values.get(name) is not None:
            yield float(str(record["epoch"])), float(values[name])


def _percent(value: float) -> str:
    return percent(value, 1)


def _short(value: float) -> str:
    return f"{value:.3g}"
