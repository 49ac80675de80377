"""The whole way, with the real command: train, report, evaluate, resume, and everything that can go
wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from cli_calls import QUICK, Answer, Rpat, call, environment
from torch import Tensor

Trained = tuple[Path, Answer]


def weights(run: Path) -> dict[str, Tensor]:
    return dict(torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"])


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed at will."""
    shutil.copytree(trained[0], tmp_path / "runs" / "run")
    return tmp_path / "runs" / "run"


# ---- the good way


def test_training_leaves_a_complete_run_folder_and_prints_the_report(trained: Trained) -> None:
    run, answer = trained
    assert answer.code == 0, answer.err
    for name in ("recipe.yaml", "metrics.jsonl", "log.txt", "report.json", "report.html"):
        assert (run / name).stat().st_size > 0
    assert (run / "checkpoints" / "best.pt").exists()
    assert "clean" in answer.out
    assert "pgd-2" in answer.out
    assert "best (epoch" in answer.out
    assert "last (epoch 2)" in answer.out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        terms = {k: v for k, v in line["train"].items() if k in ("ce", "consistency", "ra")}
        assert len(terms) == 3
        assert sum(terms.values()) == pytest.approx(line["train"]["loss"], rel=1e-4)


def test_a_pipe_gets_plain_lines(trained: Trained) -> None:
    _, answer = trained
    assert "epoch 1/2" in answer.err
    assert "\x1b" not in answer.err + answer.out
    assert "\r" not in answer.err


def test_the_saved_recipe_repeats_the_run(trained: Trained, tmp_path: Path) -> None:
    run, _ = trained
    answer = call(
        "train", "--config", run / "recipe.yaml", "--out", "again", "--eval", "clean", cwd=tmp_path
    )
    assert answer.code == 0
    assert same(weights(run), weights(tmp_path / "again"))


def test_the_run_gets_a_readable_name_that_is_never_used_twice(rpat: Rpat, tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        assert rpat("train", "--method", "standard", "--epochs", "1", "--eval", "clean").code == 0
        names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names[0].endswith("_fashion-mini_small-cnn_standard_s0")
    assert names[1] == f"{names[0]}-2"


def test_eval_without_arguments_takes_the_newest_run(run: Path, tmp_path: Path) -> None:
    answer = call("eval", "--attack", "clean,fgsm", cwd=tmp_path)
    assert answer.code == 0
    assert "fgsm" in answer.out
    report = json.loads((run / "report.json").read_text())
    assert "fgsm" in json.dumps(report)


def test_eval_writes_a_new_file_with_every_setting(run: Path, tmp_path: Path) -> None:
    before = set((run / "evals").glob("*.json"))
    for _ in range(2):
        assert (
            call(
                "eval",
                run,
                "--attack",
                "pgd-3",
                "--norm",
                "L2",
                "--checkpoint",
                "last",
                cwd=tmp_path,
            ).code
            == 0
        )
    new = sorted(set((run / "evals").glob("*.json")) - before)
    assert len(new) == 2
    record = json.loads(new[0].read_text())
    assert record["threat"] == {
        "norm": "L2",
        "eps": 1.5,
    }  # eps follows the norm: Linf's is not kept
    assert record["checkpoint"] == "last"
    assert record["n"] == 500
    result = record["results"][0]
    assert result["settings"]["steps"] == 3
    assert result["settings"]["step_size"] == pytest.approx(1.5 * 15 / 128)
    assert len(result["correct_after"]) == 500
    assert result["correct_after"].count("1") / 500 == pytest.approx(result["robust_acc"])


def test_eval_takes_a_checkpoint_file_and_prints_json(run: Path, tmp_path: Path) -> None:
    answer = call(
        "eval", run / "checkpoints" / "last.pt", "--attack", "clean", "--json", cwd=tmp_path
    )
    assert answer.code == 0
    short = json.loads(answer.out)
    assert short["epoch"] == 2
    (file,) = map(Path, short["files"]["evaluations"])
    record = json.loads(file.read_text())
    assert short["robust_acc"] == record["robust_acc"]
    assert "no attack was run: robust_acc is clean_acc" in short["remarks"]
    assert max(map(len, lists_in(short))) <= 2 < len(record["y"])  # nothing image by image
    assert answer.err == ""


def lists_in(value: object) -> Iterator[list[object]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, list):
        yield value
    for each in inner:
        yield from lists_in(each)


def form_of(value: object) -> object:
    """The keys and types of a JSON value; what may be null has no other type here."""
    if isinstance(value, dict):
        nullable = ("limit", "verdict", "union")
        return {key: key in nullable or form_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [form_of(each) for each in value[:1]]
    return type(value)


def test_train_prints_json_alone_in_the_form_of_eval(rpat: Rpat, tmp_path: Path) -> None:
    training = ("--method", "standard", "--epochs", "1", "--set", "data.val_size=100")
    threats = ("--set", "eval_threats=[Linf:0.1, L2:1.5]")
    answer = rpat("train", *training, *threats, "--eval", "clean,fgsm", "--json")
    assert answer.code == 0
    assert answer.err == ""
    trained = json.loads(answer.out)
    asked = ("--threat", "Linf:0.1", "--threat", "L2:1.5")
    evaluated = json.loads(rpat("eval", "--attack", "clean,fgsm", *asked, "--json").out)
    assert form_of(evaluated) == form_of(trained)
    assert form_of(evaluated["others"][0]).items() <= form_of(trained).items()  # type: ignore
    for key in ("run", "checkpoint", "epoch", "threat", "n", "clean_acc", "robust_acc", "union"):
        assert evaluated[key] == trained[key]
    assert trained["union"].keys() >= {"robust_acc", "interval_95", "n"}
    (report,) = tmp_path.glob("runs/*/report.json")
    saved = [each["acc"] for each in json.loads(report.read_text())["results"]]
    assert [each["robust_acc"] for each in trained["attacks"]] == saved[:2]


# ---- stop and go on


def test_stopped_and_resumed_gives_the_same_bits_as_one_go(
    trained: Trained, rpat: Rpat, tmp_path: Path
) -> None:
    stopped = rpat(
        "train", "--method", "consistency", "--ra", *QUICK, "--out", "run", "--stop-after", "1"
    )
    assert stopped.code == 0
    assert "--resume run" in stopped.err
    assert not (tmp_path / "run" / "report.json").exists()
    resumed = rpat("train", "--resume", "run")
    assert resumed.code == 0, resumed.err
    assert same(weights(trained[0]), weights(tmp_path / "run"))
    a, b = (
        [json.loads(line)["train"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (trained[0], tmp_path / "run")
    )
    assert a == b


def test_two_epochs_resumed_to_four_equal_four_in_one_go(rpat: Rpat, tmp_path: Path) -> None:
    common = (
        "--method",
        "trades",
        "--ra",
        "--schedule",
        "constant",
        "--steps",
        "1",
        "--eval",
        "clean",
    )
    assert rpat("train", *common, "--epochs", "4", "--out", "whole").code == 0
    assert rpat("train", *common, "--epochs", "2", "--out", "parts").code == 0
    resumed = rpat("train", "--resume", "parts", "--epochs", "4")
    assert resumed.code == 0
    assert "note:" not in resumed.err
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert yaml.safe_load((tmp_path / "parts" / "recipe.yaml").read_text())["epochs"] == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_stops_after_the_step_and_saves(
    trained: Trained, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rpat_cli",
            "train",
            "--method",
            "consistency",
            "--ra",
            *QUICK,
            "--out",
            "run",
        ],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)  # the first epoch is done, the second under way
    _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "rpat train --resume run" in " ".join(err.split())
    assert (
        call("train", "--resume", "last", cwd=tmp_path).code == 1
    )  # there is no runs/ folder here
    assert call("train", "--resume", "run", cwd=tmp_path).code == 0
    assert same(weights(trained[0]), weights(tmp_path / "run"))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(rpat: Rpat, tmp_path: Path) -> None:
    whole = ("--method", "pgd", *QUICK)
    assert rpat("train", *whole, "--out", "whole").code == 0
    assert (
        rpat(
            "train",
            *whole,
            "--epochs",
            "3",
            "--schedule",
            "constant",
            "--out",
            "run",
            "--stop-after",
            "2",
        ).code
        == 0
    )
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    answer = rpat("train", "--resume", "run")
    assert answer.code == 0
    assert "previous one" in answer.message
    lines = [
        json.loads(line)["epoch"]
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert lines == [1, 2, 3]


def test_what_would_change_the_past_cannot_be_changed_when_resuming(
    run: Path, tmp_path: Path
) -> None:
    before = (run / "recipe.yaml").read_text()
    answer = call("train", "--resume", run, "--beta", "3", "--lr", "0.5", cwd=tmp_path)
    assert answer.code == 2
    assert "method.beta" in answer.err
    answer = call("train", "--resume", run, "--lr", "0.5", "--batch-size", "7", cwd=tmp_path)
    assert answer.code == 2
    assert "optimizer.lr" in answer.err
    assert "batch_size" in answer.err
    assert (run / "recipe.yaml").read_text() == before


# ---- what can go wrong


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("train", "--method", "tradse"), 2, "Did you mean 'trades'?"),
        (("train", "--epochs", "many"), 2, "--epochs: epochs: 'many'"),
        (("train", "--epochs", "0"), 2, "greater than or equal to 1"),
        (("train", "--eps", "8/0"), 2, "8/255"),
        (("train", "--set", "treat.eps=1"), 2, "Did you mean 'threat'?"),
        (("train", "--config", "absent.yaml"), 2, "no such recipe file"),
        (("train", "--no-ra", "--ra-weight", "1"), 2, "cannot be combined with --no-ra"),
        (("train", "--beta", "3"), 2, "takes no settings"),
        (("train", "--val-size", "1e6"), 2, "val_size"),
        (("train", "--device", "cuda"), 2, "Available: cpu"),
        (("train", "--data", "cifar10"), 1, "rpat train --data cifar10 --download"),
        (("train", "--out", "/proc/nowhere"), 1, "cannot make the run folder /proc/nowhere"),
        (("train", "--resume", "absent"), 1, "absent does not exist"),
        (("train", "--resume", "x", "--out", "y"), 2, "cannot be combined with --resume"),
        (("eval",), 1, "Train one first with rpat train"),
        (("eval", "absent.pt"), 1, "there is no checkpoint absent.pt"),
        (("eval", "--attack", "pdg-20,autoatack"), 2, "Did you mean 'pgd'?"),
        (("eval", "--eps", "-1", "x.pt"), 1, "no checkpoint"),
        (("eval", "--step-size", "huge"), 2, "--step-size"),
    ],
)
def test_mistakes_get_one_clear_message_and_leave_nothing(
    rpat: Rpat, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    answer = rpat(*arguments)
    assert answer.code == code, answer.err
    assert told in answer.message
    assert answer.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_data_set_names_the_path_looked_at(rpat: Rpat) -> None:
    assert (
        "somewhere/cifar-10-batches-py"
        in rpat("train", "--data", "cifar10", "--data-root", "somewhere").message
    )


def test_all_mistakes_come_at_once(rpat: Rpat) -> None:
    answer = rpat("train", "--method", "nope", "--norm", "L3", "--epochs", "-2")
    assert "3 mistakes in the recipe" in answer.err
    assert all(flag in answer.err for flag in ("--method", "--norm", "--epochs"))


def test_an_existing_run_is_never_overwritten(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    answer = call("train", "--out", run, "--epochs", "1", cwd=tmp_path)
    assert answer.code == 1
    assert "rpat train --resume" in answer.message
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_checkpoint_of_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    path = run / "checkpoints" / "last.pt"
    from rpat_cli.records.checkpoint import load_checkpoint, save_checkpoint

    content = load_checkpoint(path)
    del content["format"]
    content["architecture"]["name"] = "resnet18"
    save_checkpoint(tmp_path / "other.pt", content)
    answer = call("eval", tmp_path / "other.pt", cwd=tmp_path)
    assert answer.code == 1
    assert "belongs to another model" in answer.message
    assert "missing: net." in answer.message


def test_a_checkpoint_meets_a_data_set_of_another_shape(run: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((run / "recipe.yaml").read_text())
    assert content["data"]["name"] == "fashion-mini"
    answer = call("eval", run / "recipe.yaml", cwd=tmp_path)
    assert answer.code == 1
    assert "not a checkpoint, or a damaged one" in answer.message
