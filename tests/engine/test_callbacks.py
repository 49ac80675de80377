"""What goes with a training: the metrics file and the lines of the log."""

import json
from pathlib import Path

from loops import make_loop

from rpat_cli.engine.callbacks import EpochLines, MetricsLog, epoch_line, short_epoch_line
from rpat_cli.records.metrics import EpochRecord, read_metrics


def test_a_resumed_training_records_every_epoch_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = make_loop(
        epochs=3, callbacks=(MetricsLog(path),), should_stop=lambda loop: loop.epoch == 2
    )
    first.run()
    written = path.read_text()
    # The crash came in the third epoch's line, and the checkpoint is that of the first epoch.
    path.write_text(written + '{"epoch": 3, "lr"')
    second = make_loop(epochs=3, callbacks=(MetricsLog(path),))
    second.epoch = 1
    second.run()
    assert [record["epoch"] for record in read_metrics(path)] == [1, 2, 3]
    assert path.read_text().splitlines()[0] == written.splitlines()[0]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_the_record_of_an_epoch_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    make_loop(epochs=1, callbacks=(MetricsLog(path),)).run()
    [record] = [json.loads(line) for line in path.read_text().splitlines()]
    assert record.keys() == set(EpochRecord.__dataclass_fields__)
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_a_line_says_what_the_epoch_brought_and_how_long_it_still_takes() -> None:
    train = {"loss": 1.25, "ce": 1.0, "ra": 0.25, "robust_acc": 0.5, "clean_acc": 0.6}
    record = EpochRecord(
        3, 0.05, train, 2.0, 1234.4, validation={"clean_acc": 0.7, "robust_acc_wa": 0.55}
    )
    assert epoch_line(record, 10) == (
        "epoch  3/10  loss 1.2500  (ce 1.0000, ra 0.2500)  train robust 50.0 %  clean 70.0 %  "
        "robust wa 55.0 %  "
        "lr 0.05  1234 img/s"
    )
    lines: list[str] = []
    make_loop(epochs=2, callbacks=(EpochLines(lines.append),)).run()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "left" in lines[0]
    assert "left" not in lines[-1]


def test_on_a_screen_a_line_fits_80_columns_with_all_accuracies() -> None:
    names = ("clean_acc", "robust_acc", "clean_acc_wa", "robust_acc_wa")
    record = EpochRecord(
        epoch=99,
        lr=0.0123456,
        train={"loss": 12.34567, "ce": 1.0, "trades": 2.0, "ra": 0.5, "robust_acc": 0.5},
        seconds=1.0,
        images_per_second=123456.0,
        validation=dict.fromkeys(names, 1.0),
    )
    line = short_epoch_line(record, 200, "left 23 h 59 min", 80)
    assert len(line) <= 80
    assert "clean 100.0 %  robust 100.0 %  wa 100.0/100.0 %  left 23 h 59 min" in line
    record.validation = dict.fromkeys(names[:2], 0.5)
    line = short_epoch_line(record, 200, "left 5 min 12 s", 80)
    assert "loss 12.346" in line
    assert len(line) <= 80
