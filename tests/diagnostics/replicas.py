"""Small replicas of published defenses whose robustness was not what their attacks said.

Each is a module around, or inside, the networks of tests/toys.py, and rebuilt from the formulas of
its paper; none is the published model.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import Loss, fit, of_pgd

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat

# ---- in front of the network


class Quantized(nn.Module):
    """Pixels rounded to nine levels (Guo et al., ICLR 2018, arXiv 1711.00117): a staircase, whose
    gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 8).round() / 8


class Shattering(nn.Module):
    """A fine ripple on every pixel: no change of the image, and a gradient of random sign (Athalye
    et al., ICML 2018, arXiv 1802.00420)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-3 * torch.sin(1e5 * x)


class Randomized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class StubbornDropout(nn.Dropout):
    """Drops whatever it is told."""

    def train(self, mode: bool = True) -> "StubbornDropout":
        return super().train(True)


class Smoothed(nn.Module):
    """The mean of the logits over noisy copies of the image, drawn anew at each call, by a network
    that never saw noise in training (randomized smoothing as in Cohen et al., ICML 2019, arXiv
    1902.02918)."""

    def __init__(self, model: nn.Module, sigma: float = 0.25, draws: int = 4) -> None:
        super().__init__()
        self.model, self.sigma, self.draws = model, sigma, draws

    def forward(self, x: Tensor) -> Tensor:
        noisy = x.repeat(self.draws, 1, 1, 1)
        noisy = noisy + self.sigma * torch.randn_like(noisy)
        logits: Tensor = self.model(noisy).view(self.draws, len(x), -1).mean(dim=0)
        return logits


class Purified(nn.Module):
    """A few steps that make the network more certain of its own answer, before it gives it
    (anti-adversaries: Alfarra et al., AAAI 2022, arXiv 2103.14347)."""

    def __init__(self, model: nn.Module, steps: int = 2, step_size: float = 0.1) -> None:
        super().__init__()
        self.model, self.steps, self.step_size = model, steps, step_size

    def forward(self, x: Tensor) -> Tensor:
        delta = torch.zeros_like(x)
        with torch.enable_grad():
            own = self.model(x.detach()).argmax(dim=1)
            for _ in range(self.steps):
                at = (x.detach() + delta).requires_grad_()
                loss = F.cross_entropy(self.model(at), own, reduction="sum")
                delta = delta - self.step_size * torch.autograd.grad(loss, at)[0].sign()
        logits: Tensor = self.model(x + delta.detach())
        return logits


# ---- inside the network


class MeanSparse(nn.Module):
    """Features within `threshold` standard deviations of their channel's mean become that mean
    (MeanSparse: Amini et al., 2024, arXiv 2406.05927); after a BatchNorm the mean is its bias and
    the deviation its weight."""

    def __init__(self, norm: nn.BatchNorm2d, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.register_buffer("mean", norm.bias.detach().clone().view(1, -1, 1, 1))
        self.register_buffer("deviation", norm.weight.detach().abs().clone().view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        near = (x - self.mean).abs() < self.threshold * self.deviation
        return torch.where(near, self.mean.expand_as(x), x)


class WinnersTakeAll(nn.Module):
    """Only the largest `share` of all features of an image pass (k-WTA: Xiao et al., ICLR 2020,
    arXiv 1905.10510): the set of winners jumps, and the gradient with it."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        k = max(1, int(self.share * flat.shape[1]))
        least = flat.topk(k, dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


class QuantizedFeatures(nn.Module):
    """Features rounded to `step`, as by low-bit activations (Defensive quantization: Lin et al.,
    ICLR 2019, arXiv 1904.08444)."""

    def __init__(self, step: float = 0.5) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return (x / self.step).round() * self.step


# ---- behind the network


class Scaled(nn.Module):
    """Logits times a constant: a softmax of low temperature (defensive distillation: Papernot et
    al., 2016, arXiv 1511.04508)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return self.factor * logits


class LongFeatures(nn.Module):
    """The features of the last layer brought to one length, which is large (feature normalization
    and scale: Pang et al., NeurIPS 2020, arXiv 2002.08619; there it is 15)."""

    def __init__(self, linear: nn.Linear, length: float) -> None:
        super().__init__()
        self.linear, self.length = linear, length

    def forward(self, features: Tensor) -> Tensor:
        weight = F.normalize(self.linear.weight, dim=1)
        return F.linear(self.length * F.normalize(features, dim=1), weight)


class DummyClasses(nn.Module):
    """Of 2K logits the second K belong to dummies, one for each class, which catch its adversarial
    images; an answer for a dummy counts for its class (DUCAT: Wang et al., 2024, arXiv
    2410.12671). The answer is turned back after the gradient has been cut, as where attacks get
    the K real logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        real, dummy = self.model(x).chunk(2, dim=1)
        logits: Tensor = real + (torch.maximum(real, dummy) - real).detach()
        return logits


# ---- made of trained networks


def inside(model: nn.Module, make: Callable[[nn.BatchNorm2d], nn.Module]) -> nn.Module:
    """A copy of a `small-cnn` with one more module behind each of its normalizations."""
    model = copy.deepcopy(model)
    norms = model.net.norms
    for index, norm in enumerate(norms):
        norms[index] = nn.Sequential(norm, make(norm))
    return model.eval()


def with_long_features(model: nn.Module, length: float) -> nn.Module:
    model = copy.deepcopy(model)
    model.net.linear = LongFeatures(model.net.linear, length)
    return model.eval()


COLLAPSED_AT = Threat("Linf", 0.3)


@dataclass(frozen=True)
class Nets:
    """The networks that the replicas are made of: each is trained once, when it is needed.

    `honest` was trained by PGD for `threat`.
    """

    honest: nn.Module
    threat: Threat

    @cached_property
    def winners(self) -> nn.Module:
        """The honest one with k-WTA, after two more epochs."""
        start = inside(self.honest, lambda _: WinnersTakeAll(0.05))
        return fit(of_pgd(self.threat, steps=2), 2, model=start)

    @cached_property
    def with_dummies(self) -> nn.Module:
        """20 logits: a clean image is of its class, an adversarial one of its dummy (for the most
        part, as in the paper; the weights are ours)."""
        attack = ATTACKS["pgd"](self.threat, steps=2)

        def toward(logits: Tensor, y: Tensor, real: float) -> Tensor:
            log_p = logits.log_softmax(dim=1)
            of_class, of_dummy = (log_p.gather(1, at[:, None]) for at in (y, y + 10))
            return -(real * of_class + (1 - real) * of_dummy).mean()

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            x_adv = attack(model, x, y)
            model.train()
            return toward(model(x), y, 0.9) + toward(model(x_adv), y, 0.1)

        return fit(loss, 3, classes=20)

    @cached_property
    def collapsed(self) -> nn.Module:
        """Trained with one step from the image itself and a nuclear norm (NuAT: Sriramanan et al.,
        NeurIPS 2021), which collapses at this radius: the step misses, and nothing is robust.
        Whether it has after five epochs depends on how the processor rounds; after twenty the step
        missed three images in four, with other seeds and vector units, too."""
        return fit(nuclear_norm(COLLAPSED_AT, weight=3.0), 20)


def nuclear_norm(threat: Threat, weight: float) -> Loss:
    """Cross-entropy of the image, and the nuclear norm of the change of the logits of a batch by
    one step, divided by its size; the weight rises from 0."""
    attack = ATTACKS["fgsm"](threat)
    done = [0]

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        done[0] += 1
        now = weight * min(1.0, max(0, done[0] - 40) / 160)
        x_adv = attack(model, x, y)
        logits_adv, logits = model.train()(torch.cat([x_adv, x])).chunk(2)
        change = torch.linalg.matrix_norm(logits - logits_adv, ord="nuc") / len(x)
        return F.cross_entropy(logits, y) + now * change

    return loss


# ---- all of them


@dataclass(frozen=True)
class Replica:
    """A broken defense.

    How it is made; the check that has to find it, at this level or a worse one; what to type to
    break it, one of these, or `None` where the attacks are not what is wrong; and an attack that it
    may be believed for. `images` and `queries`: what it takes to see the check's reason.
    """

    make: Callable[[Nets], nn.Module]
    check: str
    level: str
    attack: str | tuple[str, ...] | None = None
    threat: Threat | None = None
    fooled: str = "pgd-50"
    images: int = 40
    queries: int = 60


PAST = "--attack cw-pgd-50 --surrogate {}=identity"
SLOPE = "the gradient is that of the outputs"

REPLICAS: dict[str, Replica] = {
    "quantized input": Replica(
        lambda nets: nn.Sequential(Quantized(), nets.honest),
        "nonzero gradients",
        "FAIL",
        PAST.format("Quantized"),
    ),
    "quantized features": Replica(
        lambda nets: inside(nets.honest, lambda _: QuantizedFeatures()),
        "nonzero gradients",
        "FAIL",
        PAST.format("QuantizedFeatures"),
    ),
    "sparse features": Replica(
        lambda nets: inside(nets.honest, lambda norm: MeanSparse(norm, 0.6)),
        SLOPE,
        "WARN",  # FAIL on most processors: how wrong the gradient is depends on the rounding
        PAST.format("MeanSparse"),
        images=100,
    ),
    "winners take all": Replica(
        lambda nets: nets.winners, SLOPE, "WARN", "--attack square", images=100, queries=200
    ),
    "dummy classes": Replica(
        lambda nets: DummyClasses(nets.with_dummies),
        SLOPE,
        "WARN",
        "--attack mm-3",
        images=100,
    ),
    "shattered gradient": Replica(
        lambda nets: nn.Sequential(Shattering(), nets.honest),
        SLOPE,
        "FAIL",
        PAST.format("Shattering"),
    ),
    "detached gradient": Replica(
        lambda nets: nn.Sequential(Detached(), nets.honest),
        "nonzero gradients",
        "FAIL",
        PAST.format("Detached"),
    ),
    "smoothed in the test only": Replica(
        lambda nets: Smoothed(nets.honest),
        "deterministic output",
        "FAIL",
        "--attack cw-pgd-20@eot=10",
        fooled="square",
    ),
    "randomized input": Replica(
        lambda nets: nn.Sequential(Randomized(), nets.honest),
        "deterministic output",
        "FAIL",
        "--attack cw-pgd-20@eot=10",
        fooled="square",
    ),
    "dropout left on": Replica(
        lambda nets: nn.Sequential(StubbornDropout(0.2), nets.honest), "eval mode", "FAIL"
    ),
    "purified": Replica(
        lambda nets: Purified(nets.honest),
        "no optimization at inference",
        "WARN",
        # Which of the two breaks more images depends on how the processor rounds.
        ("--attack mm-3", "--attack apgd-ce"),
        fooled="cw-pgd-50",
        images=100,
    ),
    "saturated logits": Replica(
        lambda nets: nn.Sequential(nets.honest, Scaled(1e4)),
        "logits in a sane range",
        "FAIL",
        ("--attack cw-pgd-50", "--attack mm-3"),
    ),
    "long features": Replica(
        lambda nets: with_long_features(nets.honest, 1e5),
        "logits in a sane range",
        "FAIL",
        ("--attack cw-pgd-50", "--attack mm-3"),
        images=100,
    ),
    "softmax output": Replica(
        lambda nets: nn.Sequential(nets.honest, nn.Softmax(dim=1)),
        "logits, not probabilities",
        "FAIL",
    ),
    "cold softmax": Replica(
        lambda nets: nn.Sequential(nets.honest, Scaled(100.0), nn.Softmax(dim=1)),
        "nonzero gradients",
        "FAIL",
        "--attack cw-pgd-50 --surrogate Scaled=identity --surrogate Softmax=identity",
        images=100,
    ),
    "collapsed on one step": Replica(
        lambda nets: nets.collapsed,
        "one step shows what many do",
        "WARN",
        ("--attack apgd-ce", "--attack cw-pgd-50", "--attack mm-3"),
        COLLAPSED_AT,
        fooled="fgsm",
        images=200,
    ),
}
