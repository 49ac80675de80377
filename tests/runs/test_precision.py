"""`--precision auto` on a CPU: what it becomes is said, recorded, kept on resume and the same on
all ranks."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from rpat_cli import hardware
from rpat_cli.models import MODELS
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records.checkpoint import load_checkpoint
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.records.segments import Segment
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.overview import hardware as hardware_in_words
from rpat_cli.runs.estimate import dry_run
from rpat_cli.runs.inputs import Inputs
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.precision import precision_as_before
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.train import Assignment, train_run

KEYS: dict[str, Any] = {
    "model": "wide",
    "data": {"val_size": 100},
    "method": "standard",
    "epochs": 2,
    "batch_size": 500,
    "attack": {"steps": 1},
    "validation": {"steps": 1},
    "eval": ["clean"],
    "device": "cpu",
}


def wide(channels: int, image_size: int, classes: int) -> nn.Module:
    """A quick network of more than a million parameters."""
    pixels = channels * image_size * image_size
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 1300), nn.ReLU(), nn.Linear(1300, classes))


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    MODELS.add("wide", wide)


def processor(monkeypatch: pytest.MonkeyPatch, *, native: bool) -> None:
    """bfloat16 is emulated where it is not native, with the same results."""
    flags = frozenset({"avx512_bf16"} if native else {"avx2"})
    monkeypatch.setattr(hardware, "cpu_flags", lambda: flags)


def recipe_with(**keys: Any) -> Any:
    return resolve([Layer("test", {**KEYS, **keys})])


def test_it_is_said_recorded_and_not_kept_where_it_is_emulated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    processor(monkeypatch, native=True)
    said: list[str] = []
    listener = Listener(say=said.append)
    assert dry_run(recipe_with()).precision == "bf16"
    run = train_run(recipe_with(), out=tmp_path / "run", stop_after=1, listener=listener)
    assert [text for text in said if "auto is bf16 here" in text]
    assert "# In bf16, which auto was, on any machine: with --precision bf16" in (
        run.recipe.read_text()
    )
    assert "precision: auto\n" in run.recipe.read_text()
    processor(monkeypatch, native=False)
    said.clear()
    resume_run(run.path, listener=listener)
    assert any(
        "began in bf16, which cpu does not compute natively here: it" in text for text in said
    )
    last = load_checkpoint(run.checkpoint("last"))
    assert [each["precision"] for each in last["segments"]] == ["bf16", "fp32"]
    report = build_report(run).to_dict()
    assert report["environment"]["precision"] == "fp32"
    assert "bf16" not in hardware_in_words(report["environment"])
    assert [each["precision"] for each in report["training"]["segments"]] == ["bf16", "fp32"]
    assert "with --precision bf16" not in run.recipe.read_text()


def test_a_run_goes_on_in_its_precision_where_that_is_native(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor(monkeypatch, native=True)
    inputs, said = Inputs.of(recipe_with()), list[str]()

    def kept(**segment: Any) -> str:
        before = [Segment(0, 0, {"epochs": 2}, "cosine", **segment)]
        return precision_as_before(inputs, before, said.append).compute.precision

    assert kept(precision="bf16") == "bf16"
    assert not said
    assert kept(precision="fp32") == "fp32"
    assert said == ["note: going on in fp32 as the run began; auto would be bf16 on this machine"]
    assert kept(device="cpu") == "fp32"  # a version that did not record it, nor had the rule
    assert precision_as_before(inputs, [], said.append) is inputs


def test_what_was_asked_for_and_small_networks_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, native=True)
    small = Inputs.of(recipe_with(model="small-cnn"))
    exact = Inputs.of(recipe_with(precision="fp32"))
    assert (small.compute.precision, exact.compute.precision) == ("fp32", "fp32")
    before = [Segment(0, 0, {"epochs": 2}, "cosine", precision="bf16")]
    assert precision_as_before(exact, before, pytest.fail) is exact
    assert precision_as_before(small, before, str).compute.precision == "bf16"


def test_the_other_ranks_compute_as_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    processor(monkeypatch, native=True)
    inputs = Inputs.of(recipe_with())
    told = Assignment.of(inputs, RunFolder(tmp_path), None, None)
    processor(monkeypatch, native=False)
    there = Inputs.of(resolve([Layer("rank 0", told.recipe, by_user=True)]))
    assert there.compute == inputs.compute
