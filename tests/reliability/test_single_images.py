"""Networks that fail on a single image: evaluated all the same, where a second image helps, and
refused before a training whose parts of a batch have one image."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rpat_cli as rpat
from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.verdict.probe import gather
from rpat_cli.diagnostics.verdict.verdict import judge
from rpat_cli.errors import RpatError, UserCodeError
from rpat_cli.loading.in_pairs import InPairs


class Squeezing(nn.Module):
    """Loses the dimension of the batch where that has one image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1).squeeze())


class Deviating(Squeezing):
    """Normalizes over the batch, of which one image has no deviation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(((x - x.mean(0)) / (x.std(0) + 1e-3)).flatten(1))


class Failing(Squeezing):
    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 3:
            raise ValueError("not so few")
        return super().forward(x)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore:std")
def test_they_are_evaluated_and_it_is_said() -> None:
    plain = nn.Sequential(nn.Flatten(), Squeezing().head)
    wanted, _ = rpat.evaluate(plain, "clean,pgd-2", data="fashion-mini", limit=11)
    found, file = rpat.evaluate(Squeezing(), "clean,pgd-2", data="fashion-mini", limit=11)
    assert torch.equal(found.worst_case, wanted.worst_case)
    assert "fails on a single image" in json.loads(file.read_text())["remarks"][0]
    _, file = rpat.evaluate(Deviating(), "clean", data="fashion-mini", limit=10)
    assert "rpat eval --check says so" in json.loads(file.read_text())["remarks"][0]


def test_what_a_second_image_does_not_help_is_refused() -> None:
    with pytest.raises(RpatError, match="fails on an image of shape .*not so few"):
        rpat.evaluate(Failing(), "clean", data="fashion-mini", limit=10)


def test_single_images_have_the_logits_that_they_have_in_a_batch() -> None:
    model, x = InPairs(Squeezing()).eval(), torch.rand(3, 1, 28, 28)
    alone = torch.cat([model(image) for image in x.split(1)])
    assert torch.allclose(alone, model(x), atol=1e-6)
    assert torch.equal(model(x), model.model(x))


@pytest.mark.usefixtures("small_budgets")
@pytest.mark.filterwarnings("ignore:std")
def test_the_check_finds_those_that_depend_on_the_batch() -> None:
    x, y = torch.rand(20, 1, 28, 28), torch.randint(0, 10, (20,))
    threat, few = Threat("Linf", 0.1), {"square_queries": 2, "substitute_queries": 20}
    for model, level in ((Squeezing(), "PASS"), (Deviating(), "FAIL")):
        verdict = judge(gather(InPairs(model).eval(), x, y, threat, **few))
        assert verdict["independent of the batch"].level == level


def test_a_training_on_parts_of_one_image_is_refused_before_it_begins() -> None:
    with pytest.raises(UserCodeError, match=r"parts of the batch have 1 image, on which BatchNorm"):
        rpat.train(
            data={"name": "fashion-mini", "val_size": 100},
            model="torchvision:resnet18",
            method="standard",
            epochs=1,
            batch_size=4,
            accumulate=4,
            eval=["clean"],
            out="new",
        )
    assert not Path("new").exists()
