"""BPDA and EOT: gradients past modules that hide them, and through noise."""

from pathlib import Path

import pytest
import torch
from helpers import assert_same, snapshot, tiny_net
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.forward import input_gradient
from rpat_cli.attacks.losses import margin_loss
from rpat_cli.attacks.surrogate import Surrogate, backward_through, modules_of
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, RpatError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.stand_ins import read_surrogates
from rpat_cli.recipe.trust import trusting

IDENTITY = (Surrogate("Round", "identity"),)


class Round(nn.Module):
    """Quantization to `levels` values: its gradient is zero everywhere."""

    def __init__(self, levels: int = 16, *, in_place: bool = False) -> None:
        super().__init__()
        self.levels, self.in_place = levels, in_place

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            return x.mul_(self.levels).round_().div_(self.levels)
        return (x * self.levels).round() / self.levels


def linear() -> nn.Sequential:
    """w·x against 0, behind a quantization."""
    torch.manual_seed(0)
    return nn.Sequential(Round(), nn.Flatten(), nn.Linear(12, 2, bias=False)).eval()


@pytest.mark.parametrize("in_place", [False, True])
def test_gradients_pass_and_values_stay(in_place: bool) -> None:
    model, x = linear(), torch.rand(5, 3, 2, 2)
    model[0].in_place = in_place
    y, before = torch.zeros(5, dtype=torch.int64), model(x.clone())
    weights = model[2].weight[1] - model[2].weight[0]
    with backward_through(model, IDENTITY):
        grad, _, logits = input_gradient(model, x, lambda z: margin_loss(z, y))
        assert torch.equal(model(x.clone()), before)
    assert torch.equal(logits, before)
    torch.testing.assert_close(grad, weights.detach().view(1, 3, 2, 2).expand(5, -1, -1, -1))
    if not in_place:  # which a leaf does not allow
        grad, _, _ = input_gradient(model, x, lambda z: margin_loss(z, y))
        assert not grad.any()  # what it is without, and after


def test_relu_is_that_of_the_inputs() -> None:
    model, x = nn.Sequential(Round(), nn.Flatten()), torch.tensor([[[[-0.4, 0.7]]]])
    with backward_through(model, [Surrogate("0", "relu")]):
        grad, _, _ = input_gradient(model, x, lambda z: z.sum(1))
    assert grad.flatten().tolist() == [0, 1]


def test_it_leaves_the_model_as_it_was() -> None:
    model = tiny_net()
    before, hooks = snapshot(model), [len(m._forward_hooks) for m in model.modules()]
    with backward_through(model, [Surrogate("ReLU", "identity")]):
        ATTACKS["apgd-ce"](Threat("Linf", 0.1), steps=3)(
            model, torch.rand(4, 3, 8, 8), torch.arange(4)
        )
    assert_same(before, snapshot(model))
    assert [len(m._forward_hooks) for m in model.modules()] == hooks


@pytest.mark.parametrize("name", ["1", "BatchNorm2d", "[14]"])
def test_a_module_is_named_by_name_class_or_pattern(name: str) -> None:
    found = modules_of(tiny_net(), [Surrogate(name, "identity")])
    assert list(found) == (["1"] if name == "1" else ["1", "4"])


def test_a_wrong_name_lists_those_there_are() -> None:
    with pytest.raises(ConfigError) as error:
        modules_of(tiny_net(), [Surrogate("BatchNorm", "identity"), Surrogate("99", "relu")])
    text = str(error.value)
    assert "no module 'BatchNorm'. Did you mean 'BatchNorm2d'?" in text.replace("\n", " ")
    assert "no module '99'" in text
    assert "1 (BatchNorm2d), 2 (ReLU)" in text


def test_a_stand_in_of_another_shape_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with (
        backward_through(model, [Surrogate("1", "identity")]),
        pytest.raises(RpatError, match=r"'identity' of the module '1' returned \(2, 4\), the mod"),
    ):
        input_gradient(model, torch.rand(2, 1, 2, 2), lambda z: z.sum(1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("relu1", "'relu1=' is not of the form MODULE=identity"),
        ("=identity", "'=identity' is not of the form"),
        ("relu1=identiti", "Did you mean 'identity'?"),
        ("relu1=none.py:f", "which you have not named"),
    ],
)
def test_mistakes_in_words(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_surrogates([text])
    assert said in str(error.value)


def test_a_function_of_a_file_runs_once_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "soft.py"
    file.write_text("import torch\ndef soft(x):\n    return 3 * x\n")
    with pytest.raises(ConfigError, match="not named"):
        read_surrogates([f"Round={file}:soft"])
    with trusting(files=[file]):
        (surrogate,) = read_surrogates([f"Round={file}:soft"])
        with pytest.raises(ConfigError, match="Did you mean 'soft'"):
            read_surrogates([f"Round={file}:sotf"])
    model = nn.Sequential(Round(), nn.Flatten())
    with backward_through(model, [surrogate]):
        grad, _, _ = input_gradient(model, torch.rand(2, 1, 2, 2), lambda z: z.sum(1))
    assert (grad == 3).all()


def test_an_evaluation_breaks_what_quantization_hides_and_says_how() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Round(8), tiny_net()).eval()
    x = torch.rand(40, 3, 8, 8)
    y = model(x).argmax(1)
    specs, threat = parse_suite("clean,pgd-5,apgd-t-5"), Threat("Linf", 0.1)
    hidden = evaluate(model, x, y, specs, threat)
    shown = evaluate(model, x, y, specs, threat, surrogates=IDENTITY)
    assert hidden["pgd-5"].robust_acc > 0.8  # noise alone
    assert shown["pgd-5"].robust_acc < 0.6
    assert shown["apgd-t-5"].settings["surrogates"] == {"Round": "identity"}
    assert "pass Round as identity" in shown["pgd-5"].notes[0]
    assert shown["clean"].notes == ()
    assert "surrogates" not in hidden["pgd-5"].settings


class Noisy(nn.Module):
    """Logits of a linear model, and noise; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.passes = nn.Linear(4, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.linear(x.flatten(1) * (1 + 0.5 * torch.randn(len(x), 1)))


def test_eot_averages_gradients_losses_and_logits() -> None:
    torch.manual_seed(1)
    model, x = Noisy(), torch.rand(3, 1, 2, 2)
    torch.manual_seed(2)
    single = [input_gradient(model, x, lambda z: z[:, 0]) for _ in range(5)]
    torch.manual_seed(2)
    averaged = input_gradient(model, x, lambda z: z[:, 0], eot=5)
    for part in range(3):
        mean = torch.stack([each[part] for each in single]).mean(0)
        torch.testing.assert_close(averaged[part], mean)


GRADIENT_WORDS = [name for name, row in ATTACKS.items() if "eot" in row.takes]


@pytest.mark.parametrize("name", GRADIENT_WORDS)
def test_every_gradient_attack_takes_eot(name: str) -> None:
    model, x = Noisy(), torch.rand(3, 1, 2, 2)
    y = model.linear(x.flatten(1)).argmax(1)
    settings = {"steps": 2} if "steps" in ATTACKS[name].takes else {}
    passes = []
    for eot in (1, 3):
        (spec,) = parse_suite([{"attack": name, **settings, "eot": eot}])
        model.passes = 0
        torch.manual_seed(0)
        # a tiny radius: no image falls, so that all steps are taken
        ATTACKS[name](Threat("Linf", 1e-9), **{**spec.settings, "eot": eot})(model, x, y)
        passes.append(model.passes)
    assert passes[1] > 2 * passes[0]
    (with_eot,) = parse_suite(f"{name}@eot=3")
    (without,) = parse_suite(name)
    assert with_eot.label == f"{without.label}@eot=3"
    ratio = ATTACKS[name].passes(with_eot.settings) / ATTACKS[name].passes(without.settings)
    assert ratio == pytest.approx(3, rel=0.1)
