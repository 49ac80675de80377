"""Small replicas of published defenses whose robustness was not what their attacks said.

Each is a module around, or inside, the networks of tests/toys.py, and rebuilt from the formulas of
its paper; none is the published model.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ---- in front of the network


class Quantized(nn.Module):
    """Pixels rounded to nine levels (Guo et al., ICLR 2018, arXiv 1711.00117): a staircase, whose
    gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 8).round() / 8


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


def inside(model: nn.Module, make: Callable[[nn.BatchNorm2d], nn.Module]) -> nn.Module:
    """A copy of the `small-cnn` with one more module behind each of its normalizations."""
    model = copy.deepcopy(model)
    norms = model.net.norms
    for index, norm in enumerate(norms):
        norms[index] = nn.Sequential(norm, make(norm))
    return model.eval()


def with_long_features(model: nn.Module, length: float) -> nn.Module:
    model = copy.deepcopy(model)
    model.net.linear = LongFeatures(model.net.linear, length)
    return model.eval()
