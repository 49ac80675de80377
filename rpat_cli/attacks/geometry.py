"""The three norm hooks of every gradient attack: where to start, which way to step, how to come
back.

Tensors are (B, ...), each sample on its own; perturbations are in pixel units. All objects here are
stateless.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Protocol

import torch
from torch import Tensor

Clip = Callable[[Tensor], Tensor]
"""From a perturbation of some x to the nearest one, in L2, that its ball and box allow."""

Back = Callable[[Tensor], Tensor]
"""From a perturbation of some x to x_adv in its ball and box."""


class Geometry(Protocol):
    """One norm."""

    def norm(self, delta: Tensor) -> Tensor:
        """(B,) norms."""
        ...

    def random(self, x: Tensor, eps: float) -> Tensor:
        """A perturbation drawn uniformly from the ball of radius eps, shaped like x."""
        ...

    def step(self, grad: Tensor, x_adv: Tensor) -> Tensor:
        """A direction of ascent, of unit norm, at `x_adv`, in a new tensor; zero where the gradient
        is zero."""
        ...

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """The nearest point with norm <= eps."""
        ...

    def around(self, x: Tensor, eps: float) -> Clip:
        """The same with x + delta in the pixel box as well, for many perturbations of one x."""
        ...

    def back(self, x: Tensor, eps: float) -> Back:
        """x + that perturbation, for many perturbations of one x."""
        ...


@dataclass(frozen=True)
class LinfGeometry:
    """Steepest ascent is along the gradient's sign (Goodfellow et al., ICLR 2015, arXiv
    1412.6572)."""

    def norm(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(dim=1)

    def random(self, x: Tensor, eps: float) -> Tensor:
        return torch.empty_like(x).uniform_(-eps, eps)

    def step(self, grad: Tensor, x_adv: Tensor) -> Tensor:  # noqa: ARG002  (the box does not change the direction)
        return grad.sign()

    def project(self, delta: Tensor, eps: float) -> Tensor:
        return delta.clamp(-eps, eps)

    def around(self, x: Tensor, eps: float) -> Clip:
        # Ball and box are one box here, which needs to be found only once.
        down, up = room_around(x)
        lower, upper = -down.clamp_max(eps), up.clamp_max(eps)
        return lambda delta: delta.clamp(lower, upper)

    def back(self, x: Tensor, eps: float) -> Back:
        # Rounding is monotonic: the bounds of the sum give what those of the perturbation would, to
        # the bit, with one operation instead of three.
        down, up = room_around(x)
        lower, upper = (x - down.clamp_max(eps)).clamp_(0, 1), (x + up.clamp_max(eps)).clamp_(0, 1)
        return lambda delta: (x + delta).clamp_(lower, upper)


@dataclass(frozen=True)
class L2Geometry:
    """Steepest ascent is the gradient itself, at unit length."""

    def norm(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).square().sum(dim=1).sqrt()

    def random(self, x: Tensor, eps: float) -> Tensor:
        direction = self.step(torch.randn_like(x), x)
        pixels = x[0].numel()
        # the share of the ball within radius r is r^d
        return direction * eps * per_sample(torch.rand_like(x.flatten(1)[:, 0]) ** (1 / pixels), x)

    def step(self, grad: Tensor, x_adv: Tensor) -> Tensor:  # noqa: ARG002
        grad = largest_to_one(grad)
        return grad / per_sample(nonzero(self.norm(grad)), grad)

    def project(self, delta: Tensor, eps: float, room: Tensor | None = None) -> Tensor:
        size, limit = _size_and_limit(delta, room)
        if room is not None and exceeds(self.norm(limit), eps):
            limit = torch.minimum(limit, size * self._scale(size, limit, eps))
        return _shrunk_into(delta.sign() * limit.view_as(delta), self.norm(limit), eps)

    def around(self, x: Tensor, eps: float) -> Clip:
        room = room_by_sign(x)
        return lambda delta: self.project(delta, eps, room(delta))

    def back(self, x: Tensor, eps: float) -> Back:
        return summed(x, self.around(x, eps))

    @staticmethod
    def _scale(size: Tensor, limit: Tensor, eps: float) -> Tensor:
        """The s in [0, 1] with ‖min(s * size, limit)‖ = eps; 1 where the limit alone is within eps.
        All (B, d).

        The nearest point has this form (its Lagrange multiplier is 1/s - 1). The squared norm is a
        parabola in s between the values at which a pixel meets its limit, so sorting those values
        finds s exactly.
        """
        meets, order = (limit / nonzero(size)).sort(dim=1)
        at_limit = _cumulated(
            limit.gather(1, order).square()
        )  # at [k]: the first k pixels are at their limit
        squares = size.gather(1, order).square()
        moving = (
            squares.flip(1).cumsum(1).flip(1)
        )  # at [k]: pixels from the k-th on still grow with s
        norm_squared = at_limit[:, :-1] + meets.square() * moving
        k = (norm_squared < eps**2).sum(dim=1, keepdim=True).clamp_max(size.shape[1] - 1)
        rest = (eps**2 - at_limit.gather(1, k)).clamp_min(0)
        return (rest / nonzero(moving.gather(1, k))).sqrt().clamp_max(1)


@dataclass(frozen=True)
class L1Geometry:
    """Sparse ascent, after SLIDE (Tramèr & Boneh, NeurIPS 2019, arXiv 1904.13000) and "Mind the
    box" (Croce & Hein, ICML 2021, arXiv 2103.01208).

    Steepest ascent in L1 moves a single pixel, which takes far more than ten steps to use the ball
    up. So a step moves the `top` share of the pixels that can still move, those with the largest
    gradients, in proportion to them (SLIDE moves them all equally; then projecting takes back
    equally what each was given, and a linear model's worst case is never reached).
    """

    top: float = 0.01

    def norm(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().sum(dim=1)

    def random(self, x: Tensor, eps: float) -> Tensor:
        # d of d + 1 exponentials over their sum are uniform in the simplex; signs make it the ball
        flat = x.flatten(1)
        spacing = torch.empty(
            len(flat), flat.shape[1] + 1, device=x.device, dtype=x.dtype
        ).exponential_()
        sign = torch.randint_like(flat, 2) * 2 - 1
        return (eps * sign * spacing[:, 1:] / spacing.sum(dim=1, keepdim=True)).view_as(x)

    def step(self, grad: Tensor, x_adv: Tensor) -> Tensor:
        flat = largest_to_one(grad).flatten(1)
        room = (1 - x_adv).where(grad > 0, x_adv).flatten(1)
        free = room > 1e-6
        steepness = flat.abs() * free
        threshold = steepness.topk(ceil(self.top * flat.shape[1]), dim=1).values[:, -1:]
        chosen = free & (steepness >= threshold)
        # Pixels at the box are pushed along with the chosen: nothing comes of it but that
        # projecting, which takes from every pixel alike, leaves them where they are.
        length = nonzero((steepness * chosen).sum(dim=1, keepdim=True))
        return (flat / length * (chosen | ~free)).clamp(-1, 1).view_as(grad)

    def project(self, delta: Tensor, eps: float, room: Tensor | None = None) -> Tensor:
        size, limit = _size_and_limit(delta, room)
        if exceeds(self.norm(limit), eps):
            limit = torch.minimum(limit, (size - self._threshold(size, limit, eps)).clamp_min(0))
        return _shrunk_into(delta.sign() * limit.view_as(delta), self.norm(limit), eps)

    def around(self, x: Tensor, eps: float) -> Clip:
        room = room_by_sign(x)
        return lambda delta: self.project(delta, eps, room(delta))

    def back(self, x: Tensor, eps: float) -> Back:
        return summed(x, self.around(x, eps))

    @staticmethod
    def _threshold(size: Tensor, limit: Tensor, eps: float) -> Tensor:
        """The t >= 0 with Σ min((size - t)+, limit) = eps; 0 where the limit alone is within eps.
        All (B, d).

        min((size - t)+, limit) = (size - t)+ - (size - limit - t)+: the sum is piecewise linear in
        t, with its bends at the sizes (slope +1 below) and at size - limit (slope -1 below).
        Sorting the bends finds t exactly; without a box this is the projection of Duchi et al.
        (ICML 2008).
        """
        bends, order = torch.cat([size, size - limit], dim=1).sort(dim=1, descending=True)
        weight = 1 - 2 * (order >= size.shape[1]).to(size.dtype)
        slope, weighted = weight.cumsum(1), (weight * bends).cumsum(1)
        total = weighted - bends * slope  # the sum, at each bend
        k = ((total < eps).sum(dim=1, keepdim=True) - 1).clamp_min(0)
        threshold = (weighted.gather(1, k) - eps) / slope.gather(1, k).clamp_min(1)
        return threshold.clamp_min(0)


LINF, L2, L1 = LinfGeometry(), L2Geometry(), L1Geometry()


def room_around(x: Tensor) -> tuple[Tensor, Tensor]:
    """How far each pixel may go down and up in the box, both >= 0."""
    return x.clamp_min(0), (1 - x).clamp_min(0)


def room_by_sign(x: Tensor) -> Callable[[Tensor], Tensor]:
    """From a perturbation to the room there is, pixel by pixel, in its direction."""
    down, up = room_around(x)
    return lambda delta: up.where(delta > 0, down)


def summed(x: Tensor, clip: Clip) -> Back:
    """From a perturbation to x + what `clip` makes of it; clamped for the rounding of the sum only,
    since the perturbation is in the box already."""
    return lambda delta: (x + clip(delta)).clamp_(0, 1)


def exceeds(norms: Tensor, eps: float) -> bool:
    """Is any of the norms (B,) above eps, so that the work to bring it back is to be done?

    On a GPU the answer would wait for the device, which costs more than the work; that changes
    nothing where no norm is above.
    """
    return norms.device.type != "cpu" or bool((norms > eps).any())


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) values shaped to multiply `like` (B, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def nonzero(values: Tensor) -> Tensor:
    """The same values, with 1 for 0: safe to divide by."""
    return values.where(values > 0, torch.ones_like(values))


def largest_to_one(grad: Tensor) -> Tensor:
    """Each sample's gradient over its largest entry, so that squares of tiny gradients don't vanish
    in float32.

    A model that saturates has gradients of 1e-25; an attack that takes them for zero mistakes that
    for robustness.
    """
    return grad / per_sample(nonzero(grad.flatten(1).abs().amax(dim=1)), grad)


def to_unit_l1(grad: Tensor) -> Tensor:
    """Each sample's gradient at unit L1 norm; zero where it is zero."""
    grad = largest_to_one(grad)
    return grad / per_sample(nonzero(grad.flatten(1).abs().sum(dim=1)), grad)


def _size_and_limit(delta: Tensor, room: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B, d) sizes of delta, and what the box leaves of them."""
    size = delta.flatten(1).abs()
    return size, size if room is None else torch.minimum(size, room.flatten(1))


def _shrunk_into(delta: Tensor, norm: Tensor, eps: float) -> Tensor:
    """delta scaled down where its norm exceeds eps: the plain projection in L2, a last
    correction of rounding elsewhere."""
    return delta * per_sample((eps / nonzero(norm)).clamp_max(1), delta)


def _cumulated(values: Tensor) -> Tensor:
    """(B, d + 1) sums of the first 0, 1, ..., d columns."""
    return torch.nn.functional.pad(values.cumsum(1), (1, 0))
