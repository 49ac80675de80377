"""The lines of metrics.jsonl, and the best epoch among them."""

from pathlib import Path

from rpat_cli.records.metrics import (
    AVERAGED,
    EpochRecord,
    append_metrics,
    best_record,
    drop_metrics_after,
    rank,
    read_metrics,
)


def an_epoch(epoch: int, **validation: float) -> EpochRecord:
    return EpochRecord(epoch, 0.1, {"loss": 1.0}, 2.0, 100.0, 10, 20, validation)


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    append_metrics(path, an_epoch(1))
    append_metrics(path, an_epoch(2, robust_acc=0.5))
    assert [EpochRecord(**record) for record in read_metrics(path)] == [
        an_epoch(1),
        an_epoch(2, robust_acc=0.5),
    ]


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, an_epoch(1))
    path.write_text(path.read_text() + path.read_text()[:20])
    assert [record["epoch"] for record in read_metrics(path)] == [1]


def test_the_lines_of_epochs_that_are_repeated_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        append_metrics(path, an_epoch(epoch))
    drop_metrics_after(path, 2)
    assert [record["epoch"] for record in read_metrics(path)] == [1, 2]
    drop_metrics_after(tmp_path / "none.jsonl", 0)
    assert (tmp_path / "none.jsonl").read_text() == ""


def test_robust_accuracy_decides_then_clean_then_the_earlier_epoch() -> None:
    def best(*epochs: dict[str, float], suffix: str = "") -> int | None:
        records = [{"epoch": n, "validation": each} for n, each in enumerate(epochs, 1)]
        record = best_record(records, suffix)
        return None if record is None else record["epoch"]

    low, high = {"robust_acc": 0.4, "clean_acc": 0.9}, {"robust_acc": 0.5, "clean_acc": 0.6}
    assert best(low, high, low) == 2
    assert best(high, high | {"clean_acc": 0.7}) == 2
    assert best(high, high) == 1
    assert best({}, {"robust_acc": 0.1}, {}) == 2  # a validation without clean accuracy counts
    assert best({}, {}) is None
    assert best_record([{"epoch": 1}]) is None
    averaged = {f"robust_acc{AVERAGED}": 0.6, f"clean_acc{AVERAGED}": 0.7}
    assert best(high, low | averaged, high, suffix=AVERAGED) == 2
    assert rank(averaged, AVERAGED) == (0.6, 0.7)
