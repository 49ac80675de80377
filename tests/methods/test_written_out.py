"""Methods of which no step was recorded: their losses written out once more from the papers, in
double precision, on a network without BatchNorm; equal in value and in every gradient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.methods import METHODS
from rpat_cli.methods.base import Outcome, StepContext

THREAT = Threat("Linf", 0.1)
CLASSES, SEED = 4, 3
START = 0.06 * torch.linspace(-1, 1, 12).sin().view(1, 3, 2, 2).double()
"""Where every attack begins, so that it can be written out, too."""
Loss = Callable[[nn.Module, StepContext, Outcome], Tensor]


@dataclass(frozen=True)
class Row:
    """The loss from the network, the step, and the x' of the method's outcome; the method's
    settings, and what is special about the step."""

    loss: Loss
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: Mapping[str, Any] = field(default_factory=dict)


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Flatten(), nn.Linear(12, 8), nn.Softplus(), nn.Linear(8, CLASSES)
        return nn.Sequential(*layers).double()


def ce(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) cross-entropies."""
    return -logits.log_softmax(dim=1)[torch.arange(len(y)), y]


def kl(p: Tensor, q: Tensor) -> Tensor:
    """(B,) KL(p ‖ q) of two predictions."""
    return (p * (p / q).log()).sum(dim=1)


Inner = Callable[[Tensor], Tensor]


def climbed(net: nn.Module, step: StepContext, inner: Inner | None = None) -> list[Tensor]:
    """The points of plain PGD on the cross-entropy, or on another loss: the three that it takes
    steps from, and the last."""
    points = [step.x + START]
    for _ in range(3):
        at = points[-1].clone().requires_grad_()
        losses = inner(net(at)) if inner else ce(net(at), step.y)
        (gradient,) = torch.autograd.grad(losses.sum(), at)
        delta = (at.detach() - step.x + 0.04 * gradient.sign()).clamp(-THREAT.eps, THREAT.eps)
        points.append((step.x + delta).clamp(0, 1))
    return points


def pgd(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    torch.testing.assert_close(outcome.x_adv, climbed(net, step)[-1])
    return ce(net(outcome.x_adv), step.y).mean()


def trades(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    p, q = net(step.x).softmax(1), net(outcome.x_adv).softmax(1)
    points = climbed(net, step, lambda logits: kl(p.detach(), logits.softmax(1)))
    torch.testing.assert_close(outcome.x_adv, points[-1])
    return (ce(net(step.x), step.y) + 6 * kl(p, q)).mean()


def alp(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    torch.testing.assert_close(outcome.x_adv, climbed(net, step)[-1])
    z, z_adv = net(step.x), net(outcome.x_adv)
    pairing = ((z - z_adv) ** 2).sum() / z.numel()
    return (ce(z, step.y).mean() + ce(z_adv, step.y).mean()) / 2 + 0.3 * pairing


def gairat(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    *points, last = climbed(net, step)
    torch.testing.assert_close(outcome.x_adv, last)
    right = [(net(each).argmax(1) == step.y).double() for each in points]
    kappa = sum(right)
    assert 0 < kappa.sum() < len(points) * len(kappa)
    weights = (1 + torch.tanh(-0.5 + 5 * (1 - 2 * kappa / len(points)))) / 2
    return (weights * ce(net(outcome.x_adv), step.y)).sum() / weights.sum()


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) p_y - max_{k≠y} p_k."""
    p = logits.detach().softmax(1)
    others = [torch.cat([row[:k], row[k + 1 :]]).max() for row, k in zip(p, y, strict=True)]
    return p[torch.arange(len(y)), y] - torch.stack(others)


def mail(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    torch.testing.assert_close(outcome.x_adv, climbed(net, step)[-1])
    logits = net(outcome.x_adv)
    weights = 1 / (1 + torch.exp(3.0 * (margins(logits, step.y) - 0.2)))
    return (weights * ce(logits, step.y)).sum() / weights.sum()


def mail_trades(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    p = net(step.x).softmax(1).detach()
    points = climbed(net, step, lambda logits: kl(p, logits.softmax(1)))
    torch.testing.assert_close(outcome.x_adv, points[-1])
    logits, logits_adv = net(step.x), net(outcome.x_adv)
    weights = 1 / (1 + torch.exp(2.0 * margins(logits_adv, step.y)))
    robust = (weights * kl(logits.softmax(1), logits_adv.softmax(1))).sum() / weights.sum()
    return ce(logits, step.y).mean() + 5.0 * robust


def fat(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    points = torch.stack(climbed(net, step))
    wrong = torch.stack([net(each).argmax(1) != step.y for each in points[:-1]]).cumsum(0)
    # With tau 1, at this point of the training, an image takes no step from its second wrong point.
    taken = (wrong <= 1).sum(0)
    assert 0 < (taken == len(points) - 1).sum() < len(taken)
    stopped = points[taken, torch.arange(len(taken))]
    torch.testing.assert_close(outcome.x_adv, stopped)
    return ce(net(stopped), step.y).mean()


def share_between(z: Tensor, a: Tensor, b: Tensor) -> float | None:
    """The s with z = s a + (1 - s) b, if there is one."""
    s = float(((z - b) * (a - b)).sum() / (a - b).square().sum().clamp_min(1e-30))
    return s if torch.allclose(z, s * a + (1 - s) * b, rtol=0, atol=1e-9) else None


def iat(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    x, x_adv = step.x, climbed(net, step)[-1]
    losses = []
    for i, mixed in enumerate(outcome.x):
        found = [share_between(mixed, x[i], x[j]) for j in range(len(x))]
        j = next(j for j, s in enumerate(found) if s is not None)
        s = found[j]
        mixed_adv = s * x_adv[i] + (1 - s) * x_adv[j]
        torch.testing.assert_close(outcome.x_adv[i], mixed_adv)
        for at in (mixed[None], mixed_adv[None]):
            losses.append(s * ce(net(at), step.y[[i]]) + (1 - s) * ce(net(at), step.y[[j]]))
    return torch.cat(losses).sum() / 2 / len(x)


def avmixup(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    x, x_adv = step.x, climbed(net, step)[-1]
    vertices, losses = (x + 2 * (x_adv - x)).clamp(0, 1), []
    for z, clean, vertex, y in zip(outcome.x_adv, x, vertices, step.y, strict=True):
        s = share_between(z, clean, vertex)
        assert s is not None
        target = torch.full((CLASSES,), (1 - s) * 0.9 / (CLASSES - 1), dtype=z.dtype)
        target[y] = s * 1.0 + (1 - s) * 0.1
        losses.append(-(target * net(z[None]).log_softmax(1)[0]).sum())
    return torch.stack(losses).mean()


def ard(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    torch.testing.assert_close(outcome.x_adv, climbed(net, step)[-1])
    taught = (step.networks["teacher"](step.x) / 3.0).softmax(1).detach()
    learned = (net(outcome.x_adv) / 3.0).softmax(1)
    return (0.3 * ce(net(step.x), step.y) + 0.7 * 9.0 * kl(taught, learned) / CLASSES).mean()


def grad_align(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    torch.manual_seed(SEED)
    beside = step.x + torch.empty_like(step.x).uniform_(-THREAT.eps, THREAT.eps)
    gradients = []
    for at in (step.x.clone().requires_grad_(), beside.requires_grad_()):
        loss = ce(net(at), step.y).sum()
        gradients.append(torch.autograd.grad(loss, at, create_graph=True)[0].flatten(1))
    here, there = gradients[0].detach(), gradients[1]
    x_adv = (step.x + THREAT.eps * here.detach().sign().view_as(step.x)).clamp(0, 1)
    torch.testing.assert_close(outcome.x_adv, x_adv)
    cosine = (here * there).sum(1) / (here.square().sum(1) * there.square().sum(1)).sqrt()
    return ce(net(x_adv), step.y).mean() + 0.4 * (1 - cosine).mean()


def zero_grad(net: nn.Module, step: StepContext, outcome: Outcome) -> Tensor:
    at = (step.x + START).requires_grad_()
    (gradient,) = torch.autograd.grad(ce(net(at), step.y).sum(), at)
    for row in gradient.flatten(1):
        row[row.abs().argsort()[:4]] = 0  # 0.35 of 12 pixel values
    delta = (START + 2.0 * THREAT.eps * gradient.sign()).clamp(-THREAT.eps, THREAT.eps)
    torch.testing.assert_close(outcome.x_adv, (step.x + delta).clamp(0, 1))
    return ce(net(outcome.x_adv), step.y).mean()


WRITTEN_OUT = {
    "pgd": Row(pgd),
    "trades": Row(trades),
    "alp": Row(alp, {"weight": 0.3}),
    "gairat": Row(gairat, {"shift": -0.5}, {"progress": 0.5}),
    "mail": Row(mail, {"slope": 3.0, "bias": 0.2}, {"progress": 0.7}),
    "mail-trades": Row(mail_trades, step={"progress": 0.7}),
    "fat": Row(fat, step={"progress": 0.5}),
    "iat": Row(iat),
    "avmixup": Row(avmixup),
    "ard": Row(ard, {"alpha": 0.7, "temperature": 3.0}),
    "grad-align": Row(grad_align, {"weight": 0.4}),
    "zero-grad": Row(zero_grad, {"quantile": 0.35}),
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_the_loss_is_that_of_the_paper(name: str) -> None:
    row = WRITTEN_OUT[name]
    method, net = METHODS[name](**row.settings), network()
    torch.manual_seed(SEED - 1)
    x, y = torch.rand(6, 3, 2, 2).double(), torch.arange(6) % CLASSES
    settings = {"steps": 3, "step_size": 0.04, **method.attack_defaults}
    if "step_per_eps" in settings:
        settings["step_size"] = settings.pop("step_per_eps") * THREAT.eps
    settings["start"] = START
    networks = {name: network(seed=2) for name in method.networks}
    step = StepContext(net, PGD(THREAT, **settings), x, y, networks=networks, **row.step)
    torch.manual_seed(SEED)
    outcome = method(step)
    assert not torch.equal(outcome.x_adv, outcome.x)
    expected = row.loss(net, step, outcome)
    torch.testing.assert_close(outcome.loss, expected, rtol=1e-9, atol=1e-12)
    gradients, theirs = (
        torch.autograd.grad(loss, list(net.parameters())) for loss in (outcome.loss, expected)
    )
    torch.testing.assert_close(gradients, theirs, rtol=1e-9, atol=1e-12)
