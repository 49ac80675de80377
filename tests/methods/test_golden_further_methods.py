"""Every further published method against recorded steps of its code: adversarial batch, loss, every
gradient, BatchNorm's running statistics after the step, and the passes made."""

import pytest
import torch
from golden_steps import STEPS, context_of
from helpers import GOLDEN, GOLDEN_FAMILIES, CountForwards, Golden, family_of, golden_files
from torch import Tensor, nn

from rpat_cli.attacks.losses import cross_entropy
from rpat_cli.methods import eat
from rpat_cli.methods.base import Outcome
from rpat_cli.methods.compose import compose

FAMILIES = GOLDEN_FAMILIES["further methods"]
SETS = [Golden(family_of(file, FAMILIES), file) for file in golden_files("further methods")]
every_set = pytest.mark.parametrize("golden", SETS, ids=lambda golden: golden.file.stem)


def test_there_is_a_set_of_every_family() -> None:
    assert {golden.name for golden in SETS if golden.file.parent == GOLDEN} == set(FAMILIES)


class Watched:
    """An attack that keeps what it made; a method may call it several times."""

    def __init__(self, attack: object) -> None:
        self.attack = attack
        self.made: list[Tensor] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.attack, name)

    def __call__(self, *args: object) -> Tensor:
        self.made.append(self.attack(*args))
        return self.made[-1]

    def perturb(self, *args: object, **keys: object) -> Tensor:
        self.made.append(self.attack.perturb(*args, **keys))
        return self.made[-1]


def to_thirteen_decimals(logits: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of each image; its gradients are exact.

    On the way of an image of `eat_linf` two points have the same loss up to its last bit: without
    this it depends on the processor which of them AutoPGD holds for higher."""
    losses = cross_entropy(logits, y)
    return losses + (losses.round(decimals=13) - losses).detach()


def repeat(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, Outcome, Tensor]:
    """The model after the step, its outcome, and the adversarial batch."""
    if "beta_draw" in golden:
        draw = golden["beta_draw"]
        monkeypatch.setattr(torch.distributions.Beta, "sample", lambda *_: draw)
    monkeypatch.setattr(eat, "cross_entropy", to_thirteen_decimals)
    step = STEPS[golden.name](golden)
    model = golden.model()
    watched = step.attack if step.method.own_examples else Watched(step.attack)
    context = context_of(golden, model, type(step)(step.method, watched, step.context))
    outcome = compose(step.method)(context)
    if step.method.own_examples:
        return model, outcome, outcome.x_adv
    of_views = golden.name == "raat_wa"
    x_adv = torch.cat(watched.made) if of_views else watched.made[-1]
    return model, outcome, x_adv


@every_set
def test_adversarial_batch_loss_gradients_and_statistics(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, outcome, x_adv = repeat(golden, monkeypatch)
    torch.testing.assert_close(x_adv, golden["x_adv"], rtol=0, atol=1e-6)
    loss = sum(outcome.terms.values())
    loss.backward()
    tolerance = 1e-6 if golden.hyper.get("attack") == "l2-pgd" else 1e-9
    assert float(loss.detach()) == pytest.approx(float(golden["loss"]), rel=tolerance)
    own = model[1] if "mean" in golden.hyper else model
    check_gradients(own, golden.group("grad"), tolerance)
    check_statistics(own, golden.group("after"))


def check_gradients(model: nn.Module, recorded: dict[str, Tensor], tolerance: float) -> None:
    scale = max(float(grad.abs().max()) for grad in recorded.values())
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert ours.keys() == recorded.keys()
    for name, grad in recorded.items():
        gap = float((ours[name] - grad).abs().max()) / scale
        assert gap < tolerance, name


def check_statistics(model: nn.Module, recorded: dict[str, Tensor]) -> None:
    buffers = dict(model.named_buffers())
    assert recorded
    for name, value in recorded.items():
        torch.testing.assert_close(buffers[name], value, rtol=1e-6, atol=1e-7)


@every_set
def test_passes_are_never_more_than_published(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[CountForwards] = []
    build = Golden.model

    def counted(self: Golden, state: str = "state") -> nn.Module:
        model = build(self, state)
        counts.append(CountForwards(model))
        return model

    monkeypatch.setattr(Golden, "model", counted)
    repeat(golden, monkeypatch)
    assert sum(count.train for count in counts) <= int(golden["n_train_forwards"])
    assert sum(count.eval for count in counts) <= int(golden["n_eval_forwards"])


@pytest.mark.parametrize("family", ["eat_linf", "eat_l2", "eat_l1"])
def test_an_image_is_robust_that_is_right_all_the_way(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for golden in (each for each in SETS if each.name == family):
        _, outcome, _ = repeat(golden, monkeypatch)
        assert int(outcome.state["robust"]) == int(golden["robust"].sum())
        assert int(outcome.state["attacked"]) == len(golden["y"])


@pytest.mark.parametrize("family", ["ikl", "gkl"])
def test_the_class_table_collects_what_it_is_to(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for golden in (each for each in SETS if each.name == family):
        _, outcome, _ = repeat(golden, monkeypatch)
        torch.testing.assert_close(outcome.state["sums"], golden["class_table_sum"])


def test_the_memory_of_fgsm_pgi_is_the_recorded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for golden in (each for each in SETS if each.name == "fgsm_pgi"):
        _, outcome, _ = repeat(golden, monkeypatch)
        torch.testing.assert_close(outcome.memory["delta"], golden["delta_next"])
        torch.testing.assert_close(outcome.memory["momentum"], golden["momentum_next"])


def test_the_rectified_labels_are_the_recorded_ones() -> None:
    for golden in (each for each in SETS if each.name == "adr"):
        step = STEPS["adr"](golden)
        y_soft = step.method.rectified(context_of(golden, golden.model(), step))
        torch.testing.assert_close(y_soft, golden["y_soft"])
