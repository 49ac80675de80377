"""Stand-ins for gradients from the API and the command line to the record."""

from pathlib import Path

import pytest
import torch
from cli_calls import call
from torch import Tensor, nn

import rpat_cli as rpat
from rpat_cli.errors import ConfigError
from rpat_cli.records import eval_file


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 4).round() / 4


def hidden() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Rounded(), nn.Flatten(), nn.Linear(784, 10)).eval()


def test_python_records_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soft.py").write_text("def soft(x):\n    return x\n")
    options = {"data": "fashion-mini", "limit": 40, "threat": {"eps": 0.3}}
    hard, _ = rpat.evaluate(hidden(), "pgd-5", **options)
    for stand_in in ("identity", "soft.py:soft", torch.relu):
        soft, file = rpat.evaluate(hidden(), "pgd-5", surrogates={"Rounded": stand_in}, **options)
        assert soft.robust.correct <= hard.robust.correct
        record = eval_file.read(file).record["results"][0]
        written = "relu" if callable(stand_in) else stand_in
        assert record["settings"]["surrogates"]["Rounded"].endswith(written)
        assert "--surrogate" in record["notes"][0]
    with pytest.raises(ConfigError, match=r"no module 'Rounds'. Did you mean 'Rounded'"):
        rpat.evaluate(hidden(), "pgd-5", surrogates={"Rounds": "identity"}, **options)


MODEL = """
import torch
from torch import nn

class Rounded(nn.Module):
    def forward(self, x):
        return (x * 4).round() / 4

def build():
    return nn.Sequential(Rounded(), nn.Flatten(), nn.Linear(784, 10))

def soft(x):
    return torch.tanh(x)
"""


def test_the_flag_reaches_other_processes_and_the_page_of_the_result(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(MODEL)
    words = ("eval", "--model-file", "my.py:build", "--data", "fashion-mini", "--limit", "40")
    wrong = call(*words, "--attack", "fgsm", "--surrogate", "Rounded=identiti", cwd=tmp_path)
    assert (wrong.code, "Did you mean 'identity'?" in wrong.message) == (2, True)
    shared = ("--attack", "fgsm,apgd-ce-3@eot=2", "--jobs", "2", "--batch-size", "20")
    answer = call(*words, *shared, "--surrogate", "Rounded=my.py:soft", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "cannot be sent to other processes" not in answer.message
    shown = " ".join(answer.out.split())
    assert "apgd-ce-3@eot=2" in shown
    assert "! fgsm: its gradients pass Rounded as" in shown
