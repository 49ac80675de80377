"""What a notebook calls: `train`, `evaluate` and `load_model` of the package itself."""

from pathlib import Path

import pytest
import torch

import rpat_cli as rpat
from rpat_cli.errors import ConfigError


def test_from_training_to_logits(tmp_path: Path) -> None:
    said: list[str] = []
    run = rpat.train(
        method="standard", epochs=1, eval="clean", out=tmp_path / "run", say=said.append
    )
    assert [line.split()[0] for line in said] == ["epoch", "evaluating"]
    evaluation, file = rpat.evaluate(run.path, ["clean", "pgd-2"], limit=50, say=said.append)
    assert [result.label for result in evaluation.results] == ["clean", "pgd-2"]
    assert file.parent == run.evals
    assert said[-1].split()[:2] == ["pgd-2", "robust"]
    model = rpat.load_model(run.path).model
    assert model(torch.rand(3, 1, 28, 28)).shape == (3, 10)
    assert not model.training


def test_mistakes_name_the_call() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^2 mistakes in the recipe:\n  train\(\): epochs: .*\n  train\(\): methode: ",
    ):
        rpat.train(methode="trades", epochs="ten")
    with pytest.raises(ConfigError, match=r"^evaluate\(\): unknown attack 'pdg'"):
        rpat.evaluate("run", ["clean", "pdg-20"])
