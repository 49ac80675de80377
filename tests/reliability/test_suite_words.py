"""Every word of the language of `--attack`, alone and all together, on more images than fit into
one chunk.

With several chunks the forecast of the time left is made of each attack's cost: a cost of nothing
would divide by zero there.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.evaluate import Progress, evaluate
from rpat_cli.evaluation.suite import list_attacks, parse_suite
from rpat_cli.evaluation.words import SUITES

N = 250
"""Three chunks of at most 100 images."""

BUDGET = {"queries": 300, "steps": 2, "targets": 2, "rounds": 2}


def short(word: str) -> str:
    """The word with a small budget: `zoo-300`; as it is where it takes none."""
    if word in SUITES or ":" in word:
        return word
    row = ATTACKS[word]
    return f"{word}-{BUDGET[row.counts]}" if row.counts in row.takes else word


def words() -> list[str]:
    return [word for word in list_attacks() if not word.startswith(("transfer:", "file:"))]


def threat_for(word: str) -> Threat:
    norms = ATTACKS[word].norms if word in ATTACKS else ("Linf",)
    return Threat("Linf", 0.1) if "Linf" in norms else Threat("L2", 0.5)


@pytest.fixture(scope="module")
def images() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network and images of which it gets all right, some of them barely."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
        x = torch.rand(N, 1, 8, 8)
        return model, x, model(x).argmax(1)


def measured(suite: str, images: tuple[nn.Module, Tensor, Tensor], threat: Threat) -> None:
    model, x, y = images
    seen: list[Progress] = []
    sources = {"transfer:other": model, "transfer:other@mim-2": model}
    evaluation = evaluate(
        model, x, y, parse_suite(suite), threat, sources=sources, on_progress=seen.append
    )
    assert evaluation.n == N
    for progress in seen:
        assert progress.left is None or (math.isfinite(progress.left) and progress.left >= 0)
    for result in evaluation.attacks:
        assert result.forward >= N
        assert 0 <= result.robust_acc <= 1
        assert any(each.label == result.label and each.done == each.total for each in seen)


@pytest.mark.usefixtures("small_budgets")
@pytest.mark.parametrize("word", words())
def test_every_word_alone(word: str, images: tuple[nn.Module, Tensor, Tensor]) -> None:
    if word in ATTACKS and ATTACKS[word].package:
        pytest.importorskip(ATTACKS[word].package)
    measured(short(word), images, threat_for(word))


@pytest.mark.usefixtures("small_budgets")
@pytest.mark.parametrize("word", ["transfer:other", "transfer:other@mim-2"])
def test_transfers(word: str, images: tuple[nn.Module, Tensor, Tensor]) -> None:
    measured(word, images, Threat("Linf", 0.1))


@pytest.mark.usefixtures("small_budgets")
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_all_that_a_norm_allows_at_once(
    norm: str, images: tuple[nn.Module, Tensor, Tensor]
) -> None:
    """In one suite each attack's forecast counts those still to come, `noise` among them."""
    eps = {"Linf": 0.1, "L2": 0.5, "L1": 5.0}[norm]
    usable = [word for word in words() if word not in ATTACKS or norm in ATTACKS[word].norms]
    ours = [word for word in usable if word not in ATTACKS or not ATTACKS[word].package]
    together = [*ours, "transfer:other"] if norm == "Linf" else ["full", "transfer:other"]
    measured(",".join(map(short, together)), images, Threat(norm, eps))
