"""Every loss is finite, in value and in gradient, where a network is as sure as it can be: logits
of ±1e4 and, in the reduced precisions, ±6e4."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.methods.base import StepContext
from rpat_cli.methods.compose import compose

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
FORMS = ["mse", "kl", "cosine", "teacher-kl"]


class Scripted(nn.Module):
    """Returns the next of some prepared logits in every training pass, so that clean and
    adversarial images can be given any two answers; of both in one pass each gets its own."""

    def __init__(self, answers: list[Tensor]) -> None:
        super().__init__()
        self.answers = nn.ParameterList(answers)
        self.turn = 0

    def forward(self, x: Tensor) -> Tensor:
        given: list[Tensor] = []
        while sum(map(len, given)) < len(x):
            given.append(self.answers[self.turn % len(self.answers)])
            self.turn += 1
        answer = torch.cat(given)[: len(x)]
        return answer + 0 * x.flatten(1).sum(1, keepdim=True).to(answer.dtype)


def answers(kind: str, dtype: torch.dtype, size: float, turn: int) -> Tensor:
    """(6, 4) logits of ±size: one class alone, several at once, all alike, or none."""
    generator = torch.Generator().manual_seed(turn)
    if kind == "one class":
        chosen = torch.randint(0, 4, (6,), generator=generator)
        logits = nn.functional.one_hot(chosen, 4) * 2.0 - 1
    elif kind == "several":
        logits = torch.randint(0, 2, (6, 4), generator=generator) * 2.0 - 1
    elif kind == "equal":
        logits = torch.full((6, 4), 1.0 - 2 * (turn % 2))
    else:
        logits = torch.zeros(6, 4)
    return (logits * size).to(dtype)


class Unmoved:
    """An attack that makes no pass of its own: the image with a little noise."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return (x + 0.01).clamp(0, 1)

    def perturb(self, model: nn.Module, x: Tensor, loss_fn: Any, *, start: Any = None) -> Tensor:
        return (x + 0.01).clamp(0, 1)


def step_of(
    method: Any, model: nn.Module, attack: Any, x: Tensor, y: Tensor, teacher: nn.Module
) -> StepContext:
    """A step in the middle of a training, with all that the method asks for."""
    threat = Threat("Linf", 0.1)
    return StepContext(
        model,
        PGD(threat, 0.05, 2) if method.own_examples else attack,
        x,
        y,
        epoch=5,
        epochs=10,
        step=1,
        progress=0.5,
        teacher=teacher,
        lr_ratio=10,
        networks=dict.fromkeys(method.networks, teacher),
        state=method.initial_state(4),
        memory={name: torch.zeros_like(x) for name in method.remembers},
    )


def check_finite(
    method: Any,
    *regularizers: Any,
    kind: str,
    dtype: torch.dtype,
    size: float,
    soft: bool = False,
    y: Tensor | None = None,
) -> None:
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(6) % 4 if y is None else y
    x = torch.rand(len(y), 1, 4, 4, generator=generator)
    if soft:
        y = nn.functional.one_hot(y, 4) * 0.9 + 0.025
    model = Scripted([answers(kind, dtype, size, turn) for turn in range(4)])
    teacher = Scripted([answers(kind, dtype, size, turn) for turn in (1, 5, 6)])
    step = step_of(method, model, Unmoved(), x, y, teacher)
    terms = compose(method, *regularizers)(step).terms
    for name, term in terms.items():
        assert term.isfinite(), f"{name} is {term}"
    torch.stack([term.float() for term in terms.values()]).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


every_kind = pytest.mark.parametrize("kind", ["one class", "several", "equal", "zero"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


QUADRATIC = ("ikl", "gkl", "fgsm-pgi")
"""The gradients of these grow with the logits, and with their weights beyond the largest number of
float16, where the scaler leaves out the step."""


@every_dtype
@every_kind
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_is_finite(name: str, kind: str, dtype: torch.dtype) -> None:
    method = METHODS[name]()
    for size in (1e4,) if dtype == torch.float16 and name in QUADRATIC else (1e4, 6e4):
        check_finite(method, kind=kind, dtype=dtype, size=size)
        if not method.needs_class:
            check_finite(method, kind=kind, dtype=dtype, size=size, soft=True)


@every_dtype
@every_kind
@pytest.mark.parametrize("name", list(REGULARIZERS))
def test_every_regularizer_is_finite(name: str, kind: str, dtype: torch.dtype) -> None:
    variants = [{"form": form} for form in FORMS] if name == "ra" else [{}]
    for settings in variants:
        for method in ("standard", "trades", "rebat"):
            part = REGULARIZERS[name](**settings)
            check_finite(METHODS[method](), part, kind=kind, dtype=dtype, size=1e4)


@every_kind
@pytest.mark.parametrize("ra", [False, True])
@pytest.mark.parametrize("name", list(METHODS))
def test_one_class_alone_and_a_batch_of_one_are_finite(name: str, ra: bool, kind: str) -> None:
    """A published run of Consistency with RPAT was NaN in its first epoch."""
    method = METHODS[name]()
    regularizers = [REGULARIZERS["ra"](form=method.ra_form)] if ra else []
    views = compose(method, *regularizers).views
    for y in (torch.zeros(6, dtype=torch.int64), torch.tensor([2] * views)):
        check_finite(method, *regularizers, kind=kind, dtype=torch.float32, size=1e4, y=y)


class Linear(nn.Module):
    """A network whose logits are ±1e4 and more, and depend on the images."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(5)) * 1e4
        self.weight = nn.Parameter(weight.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).to(self.weight.dtype) @ self.weight.T


@every_dtype
@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_saturated_network_is_attacked_and_trained(
    name: str, norm: str, dtype: torch.dtype
) -> None:
    model = Linear(dtype)
    threat = Threat(norm, 0.1)
    method = METHODS[name]()
    attack = PGD(threat, threat.default_step_size(), 2)
    x, y = torch.rand(6, 1, 4, 4), torch.arange(6) % 4
    outcome = method(step_of(method, model, attack, x, y, Linear(dtype)))
    assert outcome.x_adv.isfinite().all()
    torch.stack([term.float() for term in outcome.terms.values()]).sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.isfinite().all()
