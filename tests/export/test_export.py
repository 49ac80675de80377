"""Exported models predict what the run's model does; a file that does not is noticed."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rpat_cli.data.base import Dataset
from rpat_cli.errors import ConfigError, RpatError
from rpat_cli.export import formats, write
from rpat_cli.export.check import compare
from rpat_cli.export.formats import FORMATS, Model
from rpat_cli.export.write import export_model
from rpat_cli.loading.load import load_model
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.recipe.data_section import DataSection
from rpat_cli.recipe.layers import Layer
from rpat_cli.runs.build import build_data
from rpat_cli.text import DASH

RUN = Path(__file__).parents[1] / "compat" / "data" / "run"


@pytest.fixture
def saved() -> SavedModel:
    return load_model(RUN)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return build_data(DataSection(), 0, test_only=True)


def test_weights_are_handed_on_whole(saved: SavedModel, data: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    done = export_model(saved, ["safetensors", "state-dict"], tmp_path, images=data.test)
    assert {name: (each.n, each.same) for name, each in done.checks.items()} == {
        "safetensors": (500, 500),
        "state-dict": (500, 500),
    }
    x, _ = data.test.tensors()
    expected = saved.model(x).argmax(1)
    plain = torch.load(done.files["state-dict"], weights_only=True)
    assert all(plain[name].equal(tensor) for name, tensor in saved.model.state_dict().items())
    # As what it is to anybody: a file of weights, with its own normalization.
    given = [Layer("", {"data": {"name": "fashion-mini"}, "model": "small-cnn"}, by_user=True)]
    again = load_model(done.files["safetensors"], changes=given)
    assert again.model(x).argmax(1).equal(expected)
    card = done.files["card"].read_text()
    (clean,) = [
        each
        for each in json.loads((RUN / "report.json").read_text())["results"]
        if (each["checkpoint"], each["label"]) == ("best", "clean")
    ]
    low, high = clean["interval_95"]
    row = (
        f"clean | {100 * clean['acc']:.2f} | {100 * low:.1f}{DASH}{100 * high:.1f} | {clean['n']} |"
    )
    assert row in card
    assert "**WARN**" in card
    with pytest.raises(ConfigError) as raised:  # nothing is overwritten
        export_model(saved, ["safetensors", "state-dict"], tmp_path)
    assert len(raised.value.problems) == 2
    export_model(saved, ["state-dict"], tmp_path / "more")


@pytest.mark.slow
def test_an_exported_program_can_be_attacked(saved: SavedModel, tmp_path: Path) -> None:
    """RobustBench and others need its gradients."""
    done = export_model(saved, ["robustbench"], tmp_path, check=10)
    program = torch.export.load(done.files["torch-export"]).module()
    x = torch.rand(3, 1, 28, 28, requires_grad=True)
    (gradient,) = torch.autograd.grad(program(x)[:, 1].sum(), x)
    (expected,) = torch.autograd.grad(saved.model(x)[:, 1].sum(), x)
    torch.testing.assert_close(gradient, expected)
    info = json.loads(done.files["robustbench"].read_text())
    assert info.keys() == {
        *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset"),
        *("venue", "architecture", "eps", "clean_acc", "reported", "autoattack_acc"),
        "unreliable",
    }
    assert (info["clean_acc"], info["eps"], info["autoattack_acc"]) == ("69.20", "0.1", "")
    assert any("AutoAttack was not run" in remark for remark in done.remarks)
    compile(done.files["snippet"].read_text(), "snippet", "exec")


def test_a_file_that_predicts_otherwise_is_not_kept(
    saved: SavedModel, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def altered(model: Model, path: Path) -> formats.Predictor:
        return lambda x: model.module(x.flip(-1))

    wrong = {"state-dict": replace(FORMATS["state-dict"], read=altered)}
    monkeypatch.setattr(write, "FORMATS", wrong)
    with pytest.raises(RpatError, match="another one: the same class on .* of 50 test images"):
        export_model(saved, ["state-dict"], tmp_path, images=data.test, check=50)
    assert not list(tmp_path.iterdir())


def test_the_check_counts_classes_and_differences(saved: SavedModel, data: Dataset) -> None:
    model = Model(saved.model, saved.architecture)
    x, _ = data.test.tensors()
    with torch.no_grad():
        logits = saved.model(x[:30])

    def shifted(images: Tensor) -> Tensor:
        moved = saved.model(images)
        moved[3] = 0.0
        moved[3, (logits[3].argmax() + 1) % 10] = 99.0
        return moved

    found = compare(model, shifted, data.test, 30)
    assert (found.n, found.same, found.within) == (30, 29, False)
    assert found.difference == pytest.approx(
        float((shifted(x[:30].clone()) - logits).detach().abs().max())
    )


def test_unknown_formats_are_all_named(saved: SavedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        export_model(saved, ["onx", "state-dict", "pickle"], tmp_path)
    assert "Did you mean 'onnx'?" in str(raised.value)
    assert len(raised.value.problems) == 2


def test_the_command_knows_every_format() -> None:
    from rpat_cli.cli.export import FORMAT_NAMES

    assert FORMAT_NAMES == write.NAMES


def test_a_file_that_gives_nan_is_another_model(saved: SavedModel) -> None:
    model = Model(saved.model, saved.architecture)
    broken = compare(model, lambda x: model.module(x) * torch.nan, None, 20)
    assert not broken.within


def test_without_figures_nothing_is_begun(saved: SavedModel, tmp_path: Path) -> None:
    for _ in range(2):  # the same command can be given again
        alone = replace(saved, file=tmp_path / "elsewhere.pt")
        with pytest.raises(RpatError, match="Evaluate it first"):
            export_model(alone, ["robustbench"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_usual_formats_need_no_extra(
    saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("safetensors", "safetensors.torch", "onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    done = export_model(saved, out=tmp_path, check=5)
    assert {"state-dict", "torch-export"} <= done.files.keys()
