"""Weights of libraries are downloaded only if the user names the model: a suite, a recipe or a
sweep file that names it may be a stranger's."""

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import rpat_cli as rpat
from rpat_cli.cli.app import app
from rpat_cli.errors import ConfigError
from rpat_cli.models.normalize import Classifier
from rpat_cli.recipe.trust import Trust, trust
from rpat_cli.runs import assist
from rpat_cli.runs.train import Assignment

WORD = "transfer:torchvision:resnet18@fgsm"
LIBRARIES = ["torchvision", "timm"]
MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""
SMALL = {
    "data": {"name": "fashion-mini", "val_size": 100},
    "model": "small-cnn",
    "method": "standard",
    "epochs": 1,
    "validation": {"steps": 1, "limit": 20},
}


@pytest.fixture(autouse=True)
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was downloaded; torch's cache is empty."""
    names: list[str] = []

    def fetch(name: str, shape: Any) -> Classifier:
        names.append(name)
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        return Classifier(net, (0.5,), (0.5,)).eval()

    monkeypatch.setattr(
        "rpat_cli.loading.external.PRETRAINED_MODELS", dict.fromkeys(LIBRARIES, fetch)
    )
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    with suppress(ImportError):  # timm keeps its weights there
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache/hub"))
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(MODEL)
    return names


def command(*arguments: Any) -> None:
    app([str(argument) for argument in arguments], prog_name="rpat", standalone_mode=False)


def evaluate(attack: Any, *more: str) -> None:
    model = ("--model-file", "own.py:build", "--data", "fashion-mini", "--limit", "10")
    command("eval", *model, "--attack", attack, "--quiet", "--jobs", "1", *more)


def written(name: str, content: Any) -> Path:
    Path(name).write_text(yaml.safe_dump(content))
    return Path(name)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_suite_file(fetched: list[str], library: str) -> None:
    pytest.importorskip(library)
    suite = written("suite.yaml", [WORD.replace("torchvision", library)])
    with pytest.raises(ConfigError, match=rf"download .*{library}:resnet18.*--trust") as refused:
        evaluate(suite)
    assert refused.value.exit_code == 2
    assert not fetched
    evaluate(suite, "--trust")
    assert fetched == ["resnet18"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_recipe(fetched: list[str], library: str) -> None:
    pytest.importorskip(library)
    word = WORD.replace("torchvision", library)
    recipe = written("sent.yaml", {**SMALL, "eval": [{"attack": word}]})
    with pytest.raises(ConfigError, match="wants to download"):
        command("train", "--config", recipe, "--quiet", "--out", "new")
    assert not fetched
    assert not Path("new").exists()
    with pytest.raises(ConfigError, match="wants to download"):
        rpat.train(recipe, out="new")
    assert not fetched


def test_what_the_user_names(fetched: list[str]) -> None:
    evaluate(WORD)
    assert fetched == ["resnet18"]
    rpat.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), WORD, data="fashion-mini")
    assert fetched == ["resnet18"] * 2
    evaluate(written("suite.yaml", ["clean", WORD]), "--set", f"eval=[{WORD}]")
    assert fetched == ["resnet18"] * 3


def test_weights_that_are_there_already(fetched: list[str], tmp_path: Path) -> None:
    from torchvision.models import ResNet18_Weights

    file = tmp_path / "cache/hub/checkpoints" / ResNet18_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    file.parent.mkdir(parents=True)
    file.touch()
    evaluate(written("suite.yaml", [WORD]))
    assert fetched == ["resnet18"]


def test_weights_of_timm_that_are_there_already(fetched: list[str], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    hub = timm.get_pretrained_cfg("resnet18").hf_hub_id
    (tmp_path / "cache/hub" / f"models--{hub.replace('/', '--')}").mkdir(parents=True)
    evaluate(written("suite.yaml", ["transfer:timm:resnet18@fgsm"]))
    assert fetched == ["resnet18"]


def test_a_network_of_a_recipe_starts_untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe of timm's networks needs no answer: none of them is asked for its weights."""
    timm = pytest.importorskip("timm")
    asked: list[bool] = []
    create = timm.create_model

    def creating(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
        asked.append(pretrained)
        network: nn.Module = create(name, pretrained=False, **options)
        return network

    monkeypatch.setattr(timm, "create_model", creating)
    recipe = written("sent.yaml", {**SMALL, "model": "timm:test_resnet"})
    command("train", "--config", recipe, "--dry-run", "--quiet")
    assert asked
    assert not any(asked)


def test_naming_one_model_answers_for_no_other(fetched: list[str]) -> None:
    suite = written("suite.yaml", ["transfer:torchvision:resnet34@fgsm"])
    with pytest.raises(ConfigError, match="resnet34"):
        evaluate(f"{WORD},{suite}")
    assert not fetched


def test_another_rank_downloads_no_more_than_the_first_may(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Trust(models=frozenset({"hf:me/asked"}))
    told = Assignment({}, {}, Path("last.pt"), None, None, 1, answer)
    there: list[Trust] = []
    monkeypatch.setattr(assist, "_train", lambda *_: there.append(trust()))
    assist.assist(SimpleNamespace(from_first=lambda _: told))  # type: ignore[arg-type]
    assert there[0].allows(Path("anywhere.py"))  # its code may lie elsewhere on that machine
    assert there[0].allows_download("hf:me/asked")
    assert not there[0].allows_download("hf:a/stranger")
