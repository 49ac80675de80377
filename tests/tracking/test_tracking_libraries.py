"""What TensorBoard, W&B and MLflow themselves hold of a run that was killed and went on. A library
that is not installed is skipped: W&B and MLflow are no part of the extra `dev`."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import as_recorded, train

WANDB_PARTS = ("history", "run", "summary", "exit")


def test_tensorboard_holds_what_metrics_jsonl_does(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    train(run, "tensorboard", 0, 3)
    follower = train(run, "tensorboard", 2, 5)
    follower.results(5, {"test/best/pgd-20": 0.5}, [])
    follower.finish("finished")
    events = accumulator.EventAccumulator(str(run / "tracking/tensorboard"))
    events.Reload()
    for name in ("train/loss", "lr", "validation/robust_acc"):
        expected = {epoch: each[name] for epoch, each in as_recorded(run).items() if name in each}
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == list(expected)
        assert dict(found) == pytest.approx(expected)
    assert events.Scalars("test/best/pgd-20")[0].value == 0.5
    assert "_hparams_/session_start_info" in events.summary_metadata


def records_of(file: Path, kinds: Any) -> Iterator[Any]:
    """The records of a file of W&B: protocol buffers, framed as LevelDB's logs are."""
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        rest_of_block = 32768 - at % 32768
        size, part = struct.unpack_from("<HB", data, at + 4)
        if rest_of_block < 7 or part == 0:
            at += rest_of_block
            continue
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if part in (1, 4):  # the only part, or the last
            yield kinds.Record.FromString(whole)
            whole = b""


def key_of(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


@pytest.mark.slow
def test_wandb_itself_holds_what_metrics_jsonl_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2 as kinds

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    said: list[str] = []
    train(tmp_path / "run", "wandb", 0, 2, said).finish("stopped")
    last = train(tmp_path / "run", "wandb", 1, 3, said)
    last.results(3, {"test/best/transfer:a@pgd": 0.5}, [tmp_path / "run/metrics.jsonl"])
    last.finish("failed")
    assert said == []
    wandb.teardown()  # its own process writes the files
    files = sorted((tmp_path / "run/tracking/wandb/wandb").glob("offline-run-*/*.wandb"))
    found = [record for file in files for record in records_of(file, kinds)]
    parts = {kind: [getattr(r, kind) for r in found if r.HasField(kind)] for kind in WANDB_PARTS}
    steps = [
        (part.step.num, {key_of(item): json.loads(item.value_json) for item in part.item})
        for part in parts["history"]
    ]
    figures = {
        step: {key: value for key, value in values.items() if key[0] != "_"}
        for step, values in steps
    }
    assert len(files) == 2
    assert [step for step, _ in steps] == [1, 2, 3]
    assert figures == as_recorded(tmp_path / "run")
    assert {(part.run_id, part.project) for part in parts["run"]} == {(files[0].stem[4:], "rpat")}
    settings = {key_of(item): item.value_json for item in parts["run"][0].config.update}
    assert settings["method.name"] == '"trades"'
    summary = {key_of(item): item.value_json for p in parts["summary"] for item in p.update}
    assert summary["test/best/transfer:a@pgd"] == "0.5"
    assert [part.exit_code for part in parts["exit"]] == [0, 1]
    assert (files[1].parent / "files/metrics.jsonl").exists()


@pytest.mark.slow
def test_mlflow_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train(tmp_path / "run", "mlflow", 0, 2).finish("stopped")
    (tmp_path / "report.json").write_text("{}")
    last = train(tmp_path / "run", "mlflow", 1, 3)
    last.results(3, {"test/best/transfer:a@pgd": 0.5}, [tmp_path / "report.json"])
    last.finish("finished")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient((tmp_path / "run/tracking/mlflow").as_uri())
    experiment = client.get_experiment_by_name("rpat").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert run.data.params["method.name"] == "trades"
    assert run.data.metrics["test/best/transfer_a_pgd"] == 0.5
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {each.step: each.value for each in history} == {1: 2.0, 2: 1.0, 3: pytest.approx(2 / 3)}
    assert len(history) == 3
