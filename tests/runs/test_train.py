"""Where a training stops and how it goes on: signals, more epochs, the images that choose the best
one."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import rpat_cli.runs.inputs as inputs_module
from rpat_cli.engine.callbacks import Callback
from rpat_cli.engine.compute import resolve_compute
from rpat_cli.errors import Interrupted
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.runs.build import architecture_for, build_data
from rpat_cli.runs.inputs import _validator
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.resume import _rates_differ, resume_run
from rpat_cli.runs.train import train_run

SMALL = {"epochs": 1, "batch_size": 500, "attack": {"steps": 1}, "eval": ["clean"], "device": "cpu"}


@pytest.mark.parametrize(
    ("schedule", "differ"),
    [
        ("constant", False),
        ({"name": "multistep", "milestones": [3]}, False),
        ({"name": "multistep", "milestones": [1]}, False),
        (
            "multistep",
            False,
        ),  # its rate falls in the last tenth: not within 4 of 4 epochs, nor of 10
        ("piecewise", True),
        ("cosine", True),
        ("linear", True),
        ("one-cycle", True),
    ],
)
def test_more_epochs_change_the_past_if_the_schedule_looks_at_the_end(
    schedule: Any, differ: bool
) -> None:
    recipe = resolve([Layer("test", {"epochs": 10, "schedule": schedule})])
    assert _rates_differ(recipe, epochs_before=4, done=4) == differ
    assert not _rates_differ(recipe, epochs_before=10, done=4)
    assert not _rates_differ(recipe, epochs_before=4, done=0)


class SignalAtTheEnd(Callback):
    def on_epoch_end(self, loop: Any, record: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_the_last_epoch_puts_the_final_evaluation_off(tmp_path: Path) -> None:
    """Slurm's time is up: an evaluation that begins now would be killed in the middle."""
    recipe = resolve([Layer("test", {**SMALL, "validation": {"steps": 1, "limit": 20}})])
    with pytest.raises(
        Interrupted, match="stopped after the last epoch; everything is saved"
    ) as stopped:
        train_run(recipe, out=tmp_path / "run", listener=Listener(callbacks=(SignalAtTheEnd(),)))
    assert stopped.value.exit_code == 75
    assert not list((tmp_path / "run" / "evals").iterdir())
    resume_run(tmp_path / "run")
    assert list((tmp_path / "run" / "evals").iterdir())
    assert (tmp_path / "run" / "report.html").exists()


class ResumeAtTheEnd(Callback):
    """Another user's `--resume` of a run that is being trained, in a process of its own."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.said = ""

    def on_epoch_end(self, loop: Any, record: Any) -> None:
        program = f"from rpat_cli.runs.resume import *; resume_run(Path({str(self.run)!r}))"
        self.said = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True
        ).stderr


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    other = ResumeAtTheEnd(tmp_path / "run")
    run = train_run(
        resolve([Layer("test", SMALL)]), out=tmp_path / "run", listener=Listener(callbacks=(other,))
    )
    assert f"another process is training {run.path}" in other.said
    assert len(run.metrics.read_text().splitlines()) == 1
    resume_run(run.path)  # once it has ended nothing is in the way


def test_a_limit_of_validation_leaves_every_class_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In files of folders the first images are of one class."""
    recipe = resolve(
        [
            Layer(
                "test",
                {**SMALL, "data": {"val_size": 200}, "validation": {"steps": 1, "limit": 50}},
            )
        ]
    )
    seen: list[torch.Tensor] = []

    def evaluate(*given: Any, **options: Any) -> Any:
        seen.append(given[2])
        return really_evaluate(*given, **options)

    really_evaluate = inputs_module.evaluate
    monkeypatch.setattr(inputs_module, "evaluate", evaluate)
    data = build_data(recipe.data, seed=0)
    model = architecture_for(recipe, data).build()
    _validator(recipe, data, resolve_compute("cpu", "fp32"))(model)
    assert seen[0].bincount().tolist() == [5] * 10
