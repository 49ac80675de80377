"""`rpat predict` on files made of test images, and `rpat doctor`."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from rpat_cli.cli.app import app
from rpat_cli.data.fashion import CLASS_NAMES
from rpat_cli.errors import ConfigError
from rpat_cli.loading.load import load_model
from rpat_cli.recipe.data_section import DataSection
from rpat_cli.runs import doctor
from rpat_cli.runs.build import build_data
from rpat_cli.runs.predict import image_files, predict_files

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tests" / "compat" / "data" / "run"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """70 test images as PNG in a folder in a folder, more than a batch, and as x."""
    folder = tmp_path_factory.mktemp("images") / "inner"
    folder.mkdir()
    x, _ = build_data(DataSection(), 0, test_only=True).test.tensors()
    for number, pixels in enumerate(x[:70]):
        array = (pixels[0] * 255).round().to(torch.uint8).numpy()
        Image.fromarray(array).save(folder / f"{number:03}.png")
    return folder.parent, x[:70]


def test_files_are_predicted_as_the_images_are(images: tuple[Path, Tensor]) -> None:
    folder, x = images
    saved = load_model(RUN)
    found = list(predict_files(saved, image_files([folder]), top=10))
    with torch.no_grad():
        chances = saved.model(x).softmax(1)
    for each, expected in zip(found, chances, strict=True):
        best = int(expected.argmax())
        assert (each.guesses[0].label, each.guesses[0].name) == (best, CLASS_NAMES[best])
        by_label = {guess.label: guess.confidence for guess in each.guesses}
        given = torch.tensor([by_label[label] for label in range(10)])
        torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-4)


def test_one_unreadable_file_does_not_hide_the_others(images: tuple[Path, Tensor]) -> None:
    folder, _ = images
    bad = folder.parent / "bad.png"
    bad.write_text("no image")
    first = folder / "inner" / "000.png"
    arguments = ["predict", str(RUN), str(bad), str(first), "--json", "--top", "2"]
    answer: Any = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 1
    failed, predicted = json.loads(answer.stdout)
    assert "bad.png" in failed["error"]
    assert len(predicted["guesses"]) == 2


def test_all_missing_files_are_named() -> None:
    with pytest.raises(ConfigError) as raised:
        image_files(["absent.png", RUN / "checkpoints", RUN])
    assert [problem.message for problem in raised.value.problems] == [
        "does not exist.",
        "has no image in it.",
        "has no image in it.",
    ]


def test_the_doctor_knows_every_extra_and_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) - {"dev", "docs"}
    assert extras == set(doctor.EXTRAS)
    names = {line.split(">")[0].lower() for line in project["dependencies"]}
    assert names == {name.lower() for name in doctor.DISTRIBUTIONS} - {"rpat"} | {"pyautoattack"}


def test_the_doctor_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.healthy(doctor.examine())
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "can_write", lambda path: False)
    found = doctor.examine()
    problems = {each.name for each in found if each.state == doctor.PROBLEM}
    assert problems == {"pyautoattack", "runs", "temporary"}
    lacking = {each.name: each.remedy for each in found if each.topic == "extras"}
    assert "pip install 'rpat[export]'" in lacking["export"]
    answer: Any = CliRunner().invoke(app, ["doctor", "--json"])
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["healthy"] is False


@pytest.mark.parametrize("command", [["predict", "last", "a.png"], ["export", "last"]])
def test_an_unknown_checkpoint_is_a_mistake(command: list[str]) -> None:
    run = str(Path(__file__).parents[1] / "compat" / "data" / "run")
    given = [run if word == "last" else word for word in command]
    wrong: Any = CliRunner().invoke(app, [*given, "--checkpoint", "../../best"])
    assert wrong.exception.exit_code == 2
    assert "Allowed: best, last" in str(wrong.exception)
