"""From checkpoint to JSON: interrupted, resumed, limited. In this process, on the embedded
images."""

import json
import math
import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rpat_cli.errors import ConfigError, Interrupted, RunFolderError
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.load import load_model
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records import eval_file
from rpat_cli.records.checkpoint import save_checkpoint
from rpat_cli.records.examples import read_examples
from rpat_cli.records.files import free_name
from rpat_cli.runs.build import architecture_for, build_data
from rpat_cli.runs.evaluate import (
    EvalOptions,
    Measured,
    eval_run,
    is_evaluated,
    measure_run,
)
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.target import limited, open_target

SUITE = parse_suite("fgsm,pgd-2")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = resolve([Layer("test", {"model": "small-cnn", "device": "cpu"})])
    data = build_data(recipe.data, recipe.seed)
    architecture = architecture_for(recipe, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architecture.build()
    content = {
        "recipe": recipe.model_dump(mode="json"),
        "architecture": architecture.to_dict(),
        "epoch": 1,
    }
    path = tmp_path_factory.mktemp("model") / "net.pt"
    save_checkpoint(path, {**content, "model": model.state_dict()})
    return path


@pytest.fixture
def net(checkpoint: Path, tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    path.write_bytes(checkpoint.read_bytes())
    return path


def measure(
    net: Path, on_progress: Callable[[Any], None] = lambda _: None, **options: Any
) -> tuple[Any, str]:
    """The record that was written, without times, and what was said."""
    said: list[str] = []
    _, file = eval_run(
        net,
        SUITE,
        changes=options.pop("changes", ()),
        options=EvalOptions(
            **{"batch_size": 4, "limit": 200, "again": "rpat eval net.pt", **options}
        ),
        listener=Listener(said.append, on_progress=on_progress),
    )
    return json.loads(file.read_text()), "".join(said)


def flags(record: Any) -> list[Any]:
    keys = ("label", "correct_after", "predicted", "broken_by", "distance", "forward", "backward")
    return [[result[key] for key in keys] for result in record["results"]]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)]
)
def test_a_signal_keeps_the_chunks_and_the_next_start_goes_on(
    net: Path, number: int, code: int
) -> None:
    handler = signal.getsignal(number)
    whole, said = measure(net)
    assert said == ""

    def stop(progress: Any) -> None:
        if (progress.label, progress.chunk) == ("pgd-2", 1):
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="Go on with: rpat eval net.pt") as caught:
        measure(net, stop)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == handler
    (partial,) = (net.parent / "evals" / "partial").glob("*.jsonl")
    known = len(partial.read_text().splitlines()) - 1
    assert (
        1
        < known
        < 2 * math.ceil(sum(whole["clean_predicted"][i] == y for i, y in enumerate(whole["y"])) / 4)
    )
    begun: list[int] = []
    resumed, said = measure(net, lambda progress: begun.append(progress.chunk))
    assert said == f"resuming: {known} chunks known"
    assert flags(resumed) == flags(whole)
    assert len(list((net.parent / "evals").glob("*.json"))) == 2  # the first result is still there
    assert not partial.parent.exists()


def test_evaluations_that_end_at_the_same_moment_do_not_overwrite_each_other(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Any] = []

    def found_free(path: Path) -> Path:
        free = free_name(path)
        if not measured:  # meanwhile another one takes the name
            measured.append(None)
            measured[0] = measure(net, limit=20)[0]
        return free

    monkeypatch.setattr("rpat_cli.records.files.free_name", found_free)
    monkeypatch.setattr(
        "rpat_cli.runs.eval_record.datetime", SimpleNamespace(now=lambda: datetime(2026, 1, 1))
    )
    record, _ = measure(net, limit=10)
    files = [json.loads(file.read_text()) for file in sorted((net.parent / "evals").glob("*.json"))]
    assert [file["n"] for file in files] == [10, 20]  # "-2.json" comes before ".json"
    assert files == [record, measured[0]]


def test_a_result_that_cannot_be_written_leaves_no_empty_file(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rpat_cli.records.files.through_to_disk", full)
    with pytest.raises(RunFolderError, match="No space left"):
        measure(net)
    assert [file.name for file in (net.parent / "evals").iterdir()] == ["partial"]
    monkeypatch.undo()
    assert "resuming: " in measure(net)[1]


def test_diagnostics_that_were_stopped_go_on_without_the_attacks(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*names: str) -> tuple[Measured, str]:
        said: list[str] = []
        result = measure_run(
            net,
            SUITE,
            diagnostics={name: {} for name in names},
            options=EvalOptions(batch_size=4, limit=20),
            listener=Listener(said.append),
        )
        return result, "".join(said)

    def stop(subject: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("rpat_cli.diagnostics.perception.measure", stop)
    with pytest.raises(Interrupted, match="the results of the attacks are in") as caught:
        measured("eps_curve", "perception")
    assert caught.value.exit_code == 130
    (file,) = (net.parent / "evals").glob("*.json")
    before = eval_file.read(file)
    assert before.pending == ("perception",)
    assert before.has_diagnostic("eps_curve")
    monkeypatch.undo()
    again, said = measured("perception")
    assert again.file == file
    assert said == f"resuming: all attacks are known, from {file}diagnostic: perception"
    assert again.evaluation.to_dict().items() <= before.record.items()
    after = eval_file.read(file)
    assert after.pending == ()
    assert after.has_diagnostic("perception")
    assert measured()[0].file != file  # of what is complete another measurement was asked


def test_a_report_is_written_also_when_a_diagnostic_was_stopped(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(subject: Any) -> Any:
        raise KeyboardInterrupt

    written: list[Path] = []
    monkeypatch.setattr("rpat_cli.diagnostics.perception.measure", stop)
    monkeypatch.setattr(
        "rpat_cli.runs.evaluate.write_report", lambda folder: written.append(folder.path)
    )
    (net.parent / "metrics.jsonl").touch()  # a run, then
    with pytest.raises(Interrupted):
        measure_run(net, SUITE, diagnostics={"perception": {}}, options=EvalOptions(limit=20))
    assert written == [net.parent]


def test_a_program_in_place_of_a_checkpoint_is_told_from_one(tmp_path: Path) -> None:
    (tmp_path / "my.py").touch()
    with pytest.raises(ConfigError, match=r"name the function in it.*my\.py:build"):
        load_model(tmp_path / "my.py")


def test_another_threat_does_not_take_over_what_is_unfinished(net: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.chunk:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        measure(net, stop)
    changes = [Layer("--eps", {"threat": {"eps": 0.01}})]
    record, said = measure(net, changes=changes)
    assert "had other threat; it is kept" in said
    clean = sum(a == b for a, b in zip(record["clean_predicted"], record["y"], strict=True))
    assert record["results"][0]["backward"] == clean  # every image was attacked anew
    assert "resuming: 1 chunk known" in measure(net)[1]


def test_chunks_of_a_version_with_other_records_are_not_taken_over(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: Any) -> None:
        if progress.chunk:
            raise KeyboardInterrupt

    monkeypatch.setattr("rpat_cli.runs.identity.RECORDS", 1)
    with pytest.raises(Interrupted):
        measure(net, stop)
    (partial,) = (net.parent / "evals" / "partial").glob("*.jsonl")
    header, line = partial.read_text().splitlines()
    old = {
        key: value for key, value in json.loads(line).items() if key not in ("margin", "confidence")
    }
    partial.write_text(f"{header}\n{json.dumps(old)}\n")
    monkeypatch.undo()
    record, said = measure(net)
    assert "had other kind of records; it is kept" in said
    assert len(record["results"][0]["margin"]) == record["n"]


def test_a_limit_takes_the_same_share_of_every_class_and_is_on_record(net: Path) -> None:
    record, _ = measure(net, limit=30)
    assert (record["n"], record["limit"], record["data"]["n"]) == (30, 30, 30)
    assert [record["y"].count(label) for label in range(10)] == [3] * 10
    assert measure(net, limit=30)[0]["y"] == record["y"]
    record, _ = measure(net, limit=1000)
    assert (record["n"], record["limit"]) == (500, None)


@pytest.mark.parametrize("limit", [1, 7, 250, 491, 499])
def test_a_limit_of_any_size_is_kept(net: Path, limit: int) -> None:
    recipe = load_model(net).recipe
    test = build_data(recipe.data, recipe.seed).test
    split = limited(test, limit)
    counts = torch.bincount(split.labels, minlength=10)
    assert len(split) == limit
    assert counts.max() - counts.min() <= 1


def test_a_finished_evaluation_is_recognised(net: Path) -> None:
    opened = open_target(net, "best", ())
    options = EvalOptions(batch_size=4, limit=30)
    assert not is_evaluated(opened, SUITE, options)
    measure(net, limit=30)
    assert is_evaluated(opened, SUITE, options)
    assert not is_evaluated(opened, SUITE[:1], options)
    (file,) = (net.parent / "evals").glob("*.json")
    file.write_text(file.read_text()[:100])
    assert not is_evaluated(opened, SUITE, options)


def test_the_worst_examples_are_beside_the_file_also_after_an_interruption(net: Path) -> None:
    suite = parse_suite("fgsm,pgd-2")
    options = EvalOptions(batch_size=20, limit=100)

    def stop(progress: Any) -> None:
        if (progress.label, progress.chunk) == ("pgd-2", 1):
            os.kill(os.getpid(), signal.SIGTERM)

    _, whole = eval_run(net, suite, options=options, listener=Listener())
    with pytest.raises(Interrupted):
        eval_run(net, suite, options=options, listener=Listener(on_progress=stop))
    _, resumed = eval_run(net, suite, options=options, listener=Listener())
    a, b = read_examples(whole), read_examples(resumed)
    assert a is not None
    assert b is not None
    assert a.index.tolist() == b.index.tolist()
    assert (a.x_adv == b.x_adv).all()
    assert not (net.parent / "evals" / "partial").exists()
