"""What rpat says of a run is true: how to repeat it, on how many threads, how often the test images
were looked at, and what was said on the console."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rpat_cli.engine.callbacks import Validation
from rpat_cli.engine.compute import resolve_compute
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.load import load_model
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records.checkpoint import checksum, load_checkpoint, save_checkpoint
from rpat_cli.records.metrics import EpochRecord, read_metrics
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.records.segments import Segment, how_to_repeat, with_next
from rpat_cli.reports.gather import build_report
from rpat_cli.runs.evaluate import EvalOptions, eval_run
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.threads import threads_as_before
from rpat_cli.runs.train import train_run

RECIPE: dict[str, Any] = {
    "model": "small-cnn",
    "method": "standard",
    "epochs": 2,
    "schedule": "cosine",
    "batch_size": 500,
    "attack": {"steps": 1},
    "validation": {"steps": 1, "limit": 50},
    "eval": ["clean", "pgd-1"],
    "device": "cpu",
}


def more(**changes: Any) -> list[Layer]:
    return [Layer("test", changes)]


def rpat(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "rpat_cli", *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


# ---- segments


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two epochs, then more: the head of its recipe says how to come to the same."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("extended") / "a run"
    run = train_run(resolve([Layer("test", RECIPE)]), out=folder)
    return resume_run(run.path, changes=more(epochs=3, validation={"limit": 60}))


def head_of(run: RunFolder) -> list[str]:
    lines = run.recipe.read_text().splitlines()
    return [line.removeprefix("# ") for line in lines if line.startswith("#")]


def test_recipe_report_and_log_tell_of_the_segments(extended: RunFolder) -> None:
    head = head_of(extended)
    assert head[:3] == [
        "Trained in 2 segments:",
        "  epochs 1 to 2: schedule 'cosine' over 2 epochs, validation.limit 50",
        "  epoch 3: schedule 'cosine' over 3 epochs, validation.limit 60",
    ]
    report = build_report(extended)
    assert any("trained in 2 segments" in remark for remark in report.remarks)
    segments = report.to_dict()["training"]["segments"]
    assert [(each["epoch"], each["recipe"]["epochs"]) for each in segments] == [(0, 2), (2, 3)]
    assert "epoch 3: schedule 'cosine' over 3 epochs" in extended.log.read_text()


@pytest.mark.slow
def test_the_commands_printed_repeat_the_run(extended: RunFolder) -> None:
    commands = [line.strip() for line in head_of(extended) if line.strip().startswith("rpat ")]
    assert len(commands) == 2
    for command in commands:
        rpat(*shlex.split(command)[1:], cwd=extended.path.parent)
    again = RunFolder(Path(f"{extended.path}-again"))
    for name in ("last", "best"):
        first, second = (load_checkpoint(run.checkpoint(name)) for run in (extended, again))
        assert checksum(first["model"]) == checksum(second["model"]), name


def test_last_records_its_accuracy_as_best_does(extended: RunFolder, tmp_path: Path) -> None:
    measured = read_metrics(extended.metrics)[-1]["validation"]
    file = Path(shutil.copy(extended.checkpoint("last"), tmp_path / "last.pt"))
    content = load_checkpoint(file)
    assert content["validation"] == measured
    assert load_model(file).recorded_acc == measured["clean_acc"]
    # Of weights that are not those that were validated, a figure far below it is doubtful.
    for name, tensor in content["model"].items():
        if name.endswith(("weight", "bias")):
            tensor.zero_()
    save_checkpoint(file, content)
    _, evaluation = eval_run(file, parse_suite("clean"), options=EvalOptions(limit=100))
    remarks = json.loads(evaluation.read_text())["remarks"]
    assert any("WARN" in remark and "that its training recorded" in remark for remark in remarks)


def test_weights_that_were_trained_since_have_no_accuracy_recorded() -> None:
    validation = Validation(lambda model: {"clean_acc": 0.5, "robust_acc": 0.25}, 1, _nothing)
    loop: Any = SimpleNamespace(epoch=1, step=0, epochs=3, models={"": None, "_wa": None})
    record = EpochRecord(1, 0.1, {}, 1.0, 1.0)
    validation.on_epoch_end(loop, record)
    assert validation.of_now(loop) == record.validation
    assert validation.of_now(loop)["clean_acc_wa"] == 0.5
    again = Validation(validation.validate, 1, _nothing)
    again.load_state_dict(validation.state_dict())
    assert again.of_now(loop) == record.validation
    loop.step = 1
    assert validation.of_now(loop) == {}
    loop.epoch, loop.step = 2, 0
    assert validation.of_now(loop) == {}


def _nothing(*_: Any) -> None:
    pass


def test_a_run_of_one_piece_is_repeated_by_its_recipe(tmp_path: Path) -> None:
    run = train_run(resolve([Layer("test", RECIPE)]), out=tmp_path / "run", stop_after=1)
    before = head_of(run)
    assert before[0] == f"Repeat this run: rpat train --config {run.recipe}"
    resume_run(run.path)
    assert head_of(run) == before
    [whole] = load_checkpoint(run.checkpoint("last"))["segments"]
    assert whole["precision"] == resolve_compute().precision  # what "auto" was
    assert not any("segments" in remark for remark in build_report(run).remarks)


def segment(epoch: int, epochs: int, step: int = 0, **machine: Any) -> Segment:
    return Segment(epoch, step, {"epochs": epochs}, "cosine", **machine)


def test_what_cannot_be_repeated_is_said() -> None:
    def said(*segments: Segment) -> str:
        return "\n".join(how_to_repeat(segments, Path("run"), Path("run/recipe.yaml")))

    assert "No command repeats this run exactly: it was changed within epoch 2, after step 7" in (
        said(segment(0, 3), segment(1, 5, step=7))
    )
    assert "had different devices" in said(
        segment(0, 3, device="cuda"), segment(1, 3, device="cpu", threads=2)
    )
    assert "had different threads" in said(
        segment(0, 3, device="cpu", threads=4), segment(1, 3, device="cpu", threads=2)
    )
    assert "had different precisions" in said(
        segment(0, 3, precision="bf16"), segment(1, 3, precision="fp32")
    )
    text = said(segment(0, 4), segment(1, 6))
    assert "--set epochs=4 --stop-after 1" in text
    assert "rpat train --resume run-again --set epochs=6" in text
    # What was changed before anything was done leaves no trace.
    assert with_next([segment(0, 3)], segment(0, 5)) == [segment(0, 5)]
    assert with_next([segment(0, 3)], segment(2, 3)) == [segment(0, 3)]


def test_a_checkpoint_of_an_earlier_version_has_one_segment(tmp_path: Path) -> None:
    run = train_run(resolve([Layer("test", RECIPE)]), out=tmp_path / "run", stop_after=1)
    content = load_checkpoint(run.checkpoint("last"))
    del content["format"], content["segments"]
    save_checkpoint(run.checkpoint("last"), content)
    resume_run(run.path, changes=more(epochs=3), stop_after=2)
    kept = load_checkpoint(run.checkpoint("last"))["segments"]
    assert [(each["epoch"], each["recipe"]["epochs"]) for each in kept] == [(0, 2), (1, 3)]


# ---- threads


def test_the_number_of_threads_is_kept_or_its_change_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr("rpat_cli.runs.threads._cores", lambda: 2)
    with threads_as_before(2, cpu, said.append):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
    assert "going on with 2 threads as the run began, not 1" in said.pop()
    with threads_as_before(64, cpu, said.append):
        assert torch.get_num_threads() == 1
    assert "was trained with 64 threads" in said.pop()
    for threads, device in ((None, cpu), (1, cpu), (2, gpu)):
        with threads_as_before(threads, device, said.append):
            assert torch.get_num_threads() == 1
    assert said == []


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_run_resumed_with_other_threads_has_the_weights_of_one_that_was_not(
    tmp_path: Path,
) -> None:
    recipe = resolve([Layer("test", RECIPE)])
    torch.set_num_threads(2)
    try:
        whole = train_run(recipe, out=tmp_path / "whole")
        run = train_run(recipe, out=tmp_path / "run", stop_after=1)
    finally:
        torch.set_num_threads(1)
    said: list[str] = []
    resume_run(run.path, listener=Listener(say=said.append))
    first, second = (load_checkpoint(each.checkpoint("last")) for each in (whole, run))
    assert checksum(first["model"]) == checksum(second["model"])
    assert second["segments"][0]["threads"] == second["environment"]["threads"] == 2
    assert any("going on with 2 threads" in text for text in said)
    assert "OMP_NUM_THREADS=2" in run.recipe.read_text()


# ---- the test images


def test_each_look_at_the_test_images_is_recorded(tmp_path: Path) -> None:
    run = train_run(resolve([Layer("test", RECIPE)]), out=tmp_path / "run", stop_after=1)
    eval_run(run.path, parse_suite("clean,fgsm"), options=EvalOptions(limit=40))
    assert any(
        "evaluated once before the training ended (after epoch 1 of 2)" in remark
        for remark in build_report(run).remarks
    )
    resume_run(run.path)
    eval_run(run.path, parse_suite("clean"), checkpoint="last")
    looks = json.loads(run.report.read_text())["test_looks"]
    early, *late = looks
    assert (early["attacks"], early["n"], early["epochs_done"]) == (["clean", "fgsm"], 40, 1)
    assert {look["epochs_done"] for look in late} == {2}
    page = run.html.read_text()
    assert f"evaluated {len(looks)} times" in page
    assert "used for nothing else" not in page


# ---- the log


@pytest.mark.slow
def test_what_the_console_said_is_in_the_log(tmp_path: Path) -> None:
    flags = ["--method", "standard", "--epochs", "2", "--steps", "1", "--set", "validation.steps=1"]
    first = rpat("train", *flags, "--eval", "clean,pgd-1", "--out", "run", cwd=tmp_path)
    second = rpat("train", "--resume", "run", "--epochs", "3", cwd=tmp_path)
    third = rpat("eval", "run", "--attack", "fgsm", cwd=tmp_path)
    log = (tmp_path / "run" / "log.txt").read_text()
    logged = " ".join(log.split())
    rounded = {f"{float(number):.3f}" for number in re.findall(r"\d+\.\d+", log)}
    for said in (first, second, third):
        for line in [*said.stderr.splitlines(), *said.stdout.splitlines()]:
            # Tables may be laid out for another width, and speeds differ by the moment.
            words = line.replace("━", "").split()
            if not words or line.startswith(("result:", "report:")):
                continue
            for word in words:
                # The screen's line about an epoch has fewer digits, to fit 80 columns.
                near = line.startswith("epoch") and word in rounded
                assert near or word.strip("!") in logged, (word, line)
    assert "under attack" in log
    assert "Test accuracy in percent" in log


def test_errors_are_in_the_log(tmp_path: Path) -> None:
    run = train_run(resolve([Layer("test", RECIPE)]), out=tmp_path / "run", stop_after=1)
    for path in run.checkpoint("last").parent.glob("last*"):
        path.write_bytes(b"damaged")
    with pytest.raises(Exception, match="damaged"):
        resume_run(run.path)
    assert "CheckpointError: " in run.log.read_text()
