"""What is damaged, odd or lost in a run folder costs that part and nothing else, and is said."""

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rpat_cli.errors import CheckpointError, RpatError, RunFolderError
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records import eval_file
from rpat_cli.records.checkpoint import load_checkpoint, load_newest, previous, save_checkpoint
from rpat_cli.records.metrics import inspect_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.write import write_report
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.train import train_run

REPEATS = int(os.environ.get("RPAT_REPEATS", "1"))
SEED = int(os.environ.get("RPAT_SEED", "0"))

RECIPE: dict[str, Any] = {
    "model": "small-cnn",
    "method": "standard",
    "epochs": 3,
    "batch_size": 500,
    "attack": {"steps": 1},
    "validation": {"steps": 1, "limit": 50},
    "wa": {"decay": 0.9, "start_epoch": 0},
    "eval": ["clean", "pgd-1"],
    "device": "cpu",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finished") / "run"
    return train_run(resolve([Layer("test", RECIPE)]), out=folder).path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))


def resumed(run: RunFolder) -> str:
    """What is said when the run is resumed."""
    said: list[str] = []
    resume_run(run.path, listener=Listener(say=said.append))
    return "\n".join(said)


def lines_of(run: RunFolder) -> list[str]:
    return run.metrics.read_text().splitlines()


# ---- metrics.jsonl

ODD = [
    *("{}", "null", "5", "[]", '"text"', "true", "{", '{"epoch": 1}', '{"epoch": "1"}'),
    *('{"epoch": true}', '{"epoch": 1.5}', '{"epoch": -1}', '{"epoch": null}', "1e999", "-"),
    *("[" * 100_000, "9" * 6_000, '{"epoch": ' + "9" * 30 + "}", "\\", "\x00", "NaN"),
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_odd_line_is_left_out_and_said(run: RunFolder, odd: str) -> None:
    whole = lines_of(run)
    run.metrics.write_text("\n".join([odd, whole[0], odd, *whole[1:], odd]) + "\n")
    report = write_report(run)
    assert [record["epoch"] for record in report.epochs] == [1, 2, 3]
    assert "metrics.jsonl has 3 lines that are no record of an epoch" in " ".join(report.remarks)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("lr", None), ("lr", "0.1"), ("train", []), ("train", {"loss": "x"}), ("train", None)),
        *(("seconds", float("inf")), ("validation", 5), ("validation", {"robust_acc": None})),
        *(("forward", -1), ("backward", 1.5), ("images_per_second", [1]), ("lr", 10**400)),
    ],
)
def test_a_record_with_an_odd_value_is_none(run: RunFolder, key: str, value: Any) -> None:
    whole = [json.loads(line) for line in lines_of(run)]
    whole[1][key] = value
    try:
        run.metrics.write_text("".join(f"{json.dumps(each)}\n" for each in whole))
    except ValueError:  # more digits than Python writes
        run.metrics.write_text("".join(f"{json.dumps({**each, key: 0})}\n" for each in whole))
        text = run.metrics.read_text().replace(f'"{key}": 0', f'"{key}": 1{"0" * 400}')
        run.metrics.write_text(text)
        assert inspect_metrics(run.metrics)[0] == []
        return
    report = write_report(run)
    assert [record["epoch"] for record in report.epochs] == [1, 3]
    assert "metrics.jsonl has no record of epoch 2" in report.remarks
    assert report.to_dict()["training"]["epochs"] == 3  # they were trained all the same


def test_bytes_that_are_no_text_cost_their_line(run: RunFolder) -> None:
    content = run.metrics.read_bytes().splitlines(keepends=True)
    run.metrics.write_bytes(content[0] + b"\xff\xfe\x80" + content[1] + content[2])
    assert [record["epoch"] for record in write_report(run).epochs] == [1, 3]
    said = resumed(run)
    assert "metrics.jsonl has no record of epoch 2" in said
    assert "1 line that is no record" in said


def test_of_doubled_lines_the_last_counts(run: RunFolder) -> None:
    first, second, third = lines_of(run)
    other = json.dumps({**json.loads(second), "lr": 123.0})
    run.metrics.write_text("\n".join([first, second, first, other, third]) + "\n")
    report = build_report(run)
    assert [record["lr"] for record in report.epochs][1] == 123.0
    assert "metrics.jsonl has several lines on epoch 1, 2: the last counts" in report.remarks


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_line_is_said_and_changes_no_result(run: RunFolder, lost: int) -> None:
    """Not even of the best or the last epoch: the last checkpoint knows them."""
    before = build_report(run)
    kept = lines_of(run)
    del kept[lost]
    run.metrics.write_text("\n".join(kept) + "\n")
    after = build_report(run)
    assert after.remarks[0] == f"metrics.jsonl has no record of epoch {lost + 1}"
    assert (after.best_epoch, after.checkpoints) == (before.best_epoch, before.checkpoints)
    assert [each.to_dict() for each in after.results] == [each.to_dict() for each in before.results]
    assert f"metrics.jsonl has no record of epoch {lost + 1}" in resumed(run)


def test_no_metrics_at_all(run: RunFolder) -> None:
    run.metrics.unlink()
    assert "metrics.jsonl has no record of epoch 1 to 3" in write_report(run).remarks
    assert build_report(run).results
    run.metrics.mkdir()
    assert any("cannot read" in remark for remark in build_report(run).remarks)


# ---- checkpoints


def test_a_lost_best_still_gives_a_report_of_last(run: RunFolder) -> None:
    shutil.rmtree(run.evals)
    for name in ("best", "best_wa"):
        run.checkpoint(name).unlink()
    said = resumed(run)
    assert "best is not evaluated: there is no checkpoint" in said
    report = build_report(run)
    assert {result.checkpoint for result in report.results} >= {"last", "last_wa"}
    assert any("checkpoints/best.pt is missing" in remark for remark in report.remarks)
    assert "best is not evaluated" in run.log.read_text()


def test_a_damaged_best_costs_nothing_else(run: RunFolder) -> None:
    shutil.rmtree(run.evals)
    run.checkpoint("best").write_bytes(b"no checkpoint")
    assert "best is not evaluated" in resumed(run)
    assert {result.checkpoint for result in build_report(run).results} >= {"best_wa"}


@pytest.mark.parametrize("lost", ["lost", "damaged", "old"])
def test_the_average_is_made_again_from_the_last_checkpoint(run: RunFolder, lost: str) -> None:
    """As a kill between the two saves of earlier versions left it."""
    path = run.checkpoint("last_wa")
    before = load_checkpoint(path)
    if lost == "lost":
        path.unlink()
    elif lost == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        shutil.copy(previous(path), path)
        assert load_checkpoint(path)["epoch"] == 2
    resumed(run)
    after = load_checkpoint(path)
    assert after["epoch"] == 3
    assert all(torch.equal(after["model"][name], value) for name, value in before["model"].items())


def test_a_damaged_checkpoint_never_replaces_the_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "last.pt"
    for value in (1.0, 2.0):
        save_checkpoint(path, {"w": torch.tensor(value)}, keep_previous=True)
    path.write_bytes(path.read_bytes()[:-50])
    assert load_newest(path)[0]["w"] == 1
    # A save that fails half way, as on a full disk, and one that is done.
    with monkeypatch.context() as disk:
        disk.setattr("rpat_cli.records.checkpoint.through_to_disk", full)
        with pytest.raises(RunFolderError):
            save_checkpoint(path, {"w": torch.tensor(3.0)}, keep_previous=True)
    assert load_checkpoint(previous(path))["w"] == 1
    save_checkpoint(path, {"w": torch.tensor(3.0)}, keep_previous=True)
    assert load_checkpoint(previous(path))["w"] == 1
    assert load_checkpoint(path)["w"] == 3


def test_when_both_are_damaged_both_are_named(run: RunFolder) -> None:
    for path in (run.checkpoint("last"), run.checkpoint("last.prev")):
        path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=r"last\.pt is .*last\.prev\.pt is "):
        resume_run(run.path)
    assert "CheckpointError" in run.log.read_text()
    assert write_report(run).results  # of the evaluations that are there


def test_damage_anywhere_in_a_checkpoint_is_found(run: RunFolder) -> None:
    """A byte flipped, a piece cut off or doubled: an error or the very same content."""
    path = run.checkpoint("best")
    content, whole = path.read_bytes(), load_checkpoint(path)
    generator = random.Random(SEED)
    for _ in range(60 * REPEATS):
        place = generator.randrange(len(content))
        changed = bytearray(content)
        kind = generator.choice(["flip", "cut", "double"])
        if kind == "flip":
            changed[place] ^= 1 << generator.randrange(8)
        elif kind == "cut":
            del changed[place:]
        else:
            changed[place:place] = changed[place : place + 64]
        path.write_bytes(bytes(changed))
        with contextlib.suppress(CheckpointError):
            found = load_checkpoint(path)["model"]
            assert all(torch.equal(found[name], value) for name, value in whole["model"].items())


# ---- evals/*.json


def accuracies(run: RunFolder) -> dict[tuple[str, str], float]:
    report = build_report(run)
    return {(each.checkpoint, each.label): each.accuracy.value for each in report.results}


def test_a_changed_result_is_not_believed(run: RunFolder) -> None:
    file = eval_file.newest(run.evals)
    assert file is not None
    for key, change in {
        "correct_after": lambda flags: flags[:7] + str(1 - int(flags[7])) + flags[8:],
        "robust_acc": lambda value: value / 2,
        "predicted": lambda values: values[1:],
        "distance": lambda values: [*values, 0.0],
        "label": lambda _: 5,
        "seconds": lambda _: "long",
        "stages": lambda _: [{}],
    }.items():
        record = json.loads(json.dumps(file.record))
        record["results"][-1][key] = change(record["results"][-1][key])
        file.path.write_text(json.dumps(record))
        remarks = build_report(run).remarks
        assert any(f"evals/{file.path.name} is damaged" in text for text in remarks), key


def test_a_damaged_evaluation_blocks_no_other(run: RunFolder) -> None:
    """Every value of the newest file replaced by values of other kinds, one after another."""
    file = eval_file.newest(run.evals)
    assert file is not None
    assert file.checkpoint == "best_wa"
    wanted = {key: value for key, value in accuracies(run).items() if not key[0].endswith("_wa")}
    assert wanted
    generator = random.Random(SEED)
    values = [None, True, -1, 10**30, 1e308, "", "x", [], {}, [None], {"a": 1}, "2026-01-01"]
    for _ in range(50 * REPEATS):
        record = json.loads(json.dumps(file.record))
        where, key = generator.choice(list(_places(record)))
        where[key] = generator.choice(values)
        file.path.write_text(json.dumps(record))
        report = write_report(run)  # and it can be shown
        found = {(each.checkpoint, each.label): each.accuracy.value for each in report.results}
        assert wanted.items() <= found.items()


def _places(value: Any, depth: int = 4) -> Iterator[tuple[Any, Any]]:
    """Each place of nested dicts and lists that a value may be put in; of a long list, the first
    two."""
    if depth and isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(min(2, len(value)))
        for key in keys:
            yield value, key
            yield from _places(value[key], depth - 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text('{"created": ' + "9" * 6000 + "}"),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_bytes(b""),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("gone"),
    ],
    ids=["deep", "digits", "bytes", "empty", "folder", "link"],
)
def test_files_that_are_none_are_named(run: RunFolder, make: Callable[[Path], Any]) -> None:
    before = accuracies(run)
    make(run.evals / "odd.json")
    assert accuracies(run) == before
    assert any("odd.json" in remark for remark in build_report(run).remarks)
    assert "has been evaluated already" in resumed(run)


def test_a_clock_ahead_does_not_make_an_old_evaluation_the_newest(run: RunFolder) -> None:
    from rpat_cli.evaluation.suite import parse_suite
    from rpat_cli.runs.evaluate import eval_run

    for path in run.evals.glob("*.json"):
        record = json.loads(path.read_text())
        record["created"] = "2199-01-01T00:00:00+00:00"
        path.write_text(json.dumps(record))
    _, file = eval_run(run.path, parse_suite("clean,pgd-1"))
    newest = eval_file.newest(run.evals)
    assert newest is not None
    assert newest.path == file
    result = next(each for each in build_report(run).results if each.label == "pgd-1")
    assert result.evaluation == file.name


def test_nothing_but_errors_of_rpat(run: RunFolder) -> None:
    """A recipe that cannot be read is the one thing that a report needs."""
    run.recipe.write_text("{")
    with pytest.raises(RpatError):
        build_report(run)
