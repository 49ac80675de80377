"""What an adversary may do: a norm, a radius, and the pixel box [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rpat_cli.errors import ConfigError, Problem
from rpat_cli.registry import Registry, as_written
from rpat_cli.text import parse_number

if TYPE_CHECKING:  # the recipe layer reads the defaults below without paying for torch
    from collections.abc import Callable

    from torch import Tensor

    from rpat_cli.attacks.geometry import Geometry

GEOMETRIES: Registry[Geometry] = Registry(
    "norm",
    {
        "Linf": "rpat_cli.attacks.geometry:LINF",
        "L2": "rpat_cli.attacks.geometry:L2",
        "L1": "rpat_cli.attacks.geometry:L1",
    },
)

DEFAULT_EPS: dict[str, float] = {"Linf": 8 / 255, "L2": 128 / 255, "L1": 2000 / 255}
"""Radius of the ball per norm, in pixels of [0, 1], as in RPAT (Wang & Liu, ICCV 2025)."""

STEP_PER_EPS: dict[str, float] = {"Linf": 2 / 8, "L2": 15 / 128, "L1": 400 / 2000}
"""Step size of a 10-step attack as a share of eps, from the same source."""


def longest(norm: str, pixels: int) -> float:
    """The largest distance of two images of so many pixels (all channels) in [0, 1]."""
    return {"Linf": 1.0, "L2": math.sqrt(pixels), "L1": float(pixels)}[norm]


def too_long(norm: str, length: float, pixels: int | None = None) -> str:
    """What is wrong with a radius or step that no two images have between them; "" if nothing is.

    Without `pixels` the size of the images is not known, and only Linf has a bound.
    """
    if norm == "Linf" and length > 1:
        return f"must be at most 1 in Linf: pixels are in [0, 1]. Did you mean {length:g}/255?"
    if norm not in DEFAULT_EPS or pixels is None or length <= longest(norm, pixels):
        return ""
    return (
        f"must be at most {longest(norm, pixels):.4g} in {norm}: no two images of {pixels:,} pixel "
        f"values in [0, 1] are further apart. Did you mean {length:g}/255?"
    )


def wider_than_ball(step_size: float, eps: float) -> str:
    """A remark on a step that leads out of the ball from anywhere in it; "" on any other."""
    if step_size <= 2 * eps:
        return ""
    return (
        f"the step size {step_size:.4g} is longer than the ball is wide (2 eps = {2 * eps:.4g}): "
        f"did you mean {step_size:g}/255?"
    )


def parse_threat(text: str) -> tuple[str, float]:
    """`Linf:8/255`: the norm, as it is written here, and the eps. Raises `ConfigError`."""
    norm, _, number = text.partition(":")
    norm = as_written(norm, GEOMETRIES)
    try:
        eps = float(parse_number(number.strip()))
    except (ValueError, TypeError):
        eps = 0.0
    problem = "" if norm in GEOMETRIES and eps > 0 else "is not of the form NORM:EPS"
    problem = problem or too_long(norm, eps)
    if problem or not math.isfinite(eps):
        hint = f"Norms: {', '.join(GEOMETRIES)}. Example: Linf:8/255."
        raise ConfigError(Problem("", f"{text!r} {problem}.".replace("..", "."), hint=hint))
    return norm, eps


@dataclass(frozen=True)
class Threat:
    """All images within `eps` (pixel units) of x in `norm` ("Linf", "L2" or "L1") that are images:
    pixels in [0, 1].

    Raises `ConfigError` for another norm, and for an eps that is negative or not finite.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        GEOMETRIES[self.norm]  # raises, with the names there are
        if not (math.isfinite(self.eps) and self.eps >= 0):
            message = f"a radius must be a finite number >= 0, given {self.eps}."
            hint = f"Usual for {self.norm}: {DEFAULT_EPS[self.norm]:.5g}."
            raise ConfigError(Problem("eps", message, hint=hint))

    @property
    def geometry(self) -> Geometry:
        return GEOMETRIES[self.norm]

    def default_step_size(self) -> float:
        """The step, in pixel units, with which ten steps cross the ball a little more than once."""
        return self.eps * STEP_PER_EPS[self.norm]

    def whole_box(self, x: Tensor) -> Threat:
        """The same norm with the smallest radius that reaches every image of the shape of x (B,
        ...)."""
        pixels = x.flatten(1).shape[1]
        return Threat(self.norm, longest(self.norm, pixels))

    def project(self, delta: Tensor) -> Tensor:
        """The nearest point (in L2) of the ball, for each sample of `delta` (B, ...); the box is
        not looked at."""
        return self.geometry.project(delta, self.eps)

    def clip(self, x: Tensor, delta: Tensor) -> Tensor:
        """The nearest perturbation in ball *and* box around x (B, ...): exactly, for all three
        norms.

        Projecting onto the ball and clamping afterwards also lands in both, but not at the nearest
        point: an attack that does so falls short of the worst case wherever the box bites (Croce &
        Hein, "Mind the box", ICML 2021, arXiv 2103.01208).
        """
        return self.geometry.around(x, self.eps)(delta)

    def apply(self, x: Tensor, delta: Tensor) -> Tensor:
        """x + delta, detached, brought into ball and box."""
        return self.around(x)(delta)

    def around(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`apply` for many perturbations of one x: what follows from x is computed once."""
        back = self.geometry.back(x.detach(), self.eps)
        return lambda delta: back(delta.detach())

    def ball_then_box(self, x: Tensor, ahead: Tensor) -> Tensor:
        """The point `ahead` brought into the ball around x (B, ...), then into the box: inside of
        both, though not the nearest such point. Published attacks go there."""
        import torch

        if self.norm == "Linf":
            ahead = torch.minimum(torch.maximum(ahead, x - self.eps), x + self.eps)
        else:
            ahead = x + self.project(ahead - x)
        return ahead.clamp(0, 1)

    def distance(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """(B,) norms of x_adv - x."""
        return self.geometry.norm(x_adv - x)

    def contains(self, x: Tensor, x_adv: Tensor, tol: float = 1e-6) -> Tensor:
        """(B,) bool: is x_adv in ball and box, give or take `tol` of rounding *per pixel*?

        In L2 and L1 the roundings of d pixels add up to `tol * sqrt(d)` and `tol * d`. NaN is never
        inside.
        """
        pixels = x_adv.flatten(1)
        count = pixels.shape[1]
        slack = tol * {"Linf": 1.0, "L2": count**0.5, "L1": float(count)}[self.norm]
        in_box = ((pixels >= -tol) & (pixels <= 1 + tol)).all(dim=1)
        in_ball: Tensor = self.distance(x, x_adv) <= self.eps + slack
        return in_ball & in_box
