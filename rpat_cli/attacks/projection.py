"""How a point is brought back into ball and box after a step."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from rpat_cli.attacks.threat import Threat

Projection = Literal["exact", "box-first", "ball-first"]
Reach = float | Literal["box"]


def box_first(threat: Threat, x: Tensor, delta: Tensor) -> Tensor:
    """Clamped to the box, then shrunk into the ball: the L2 attacks of TRADES (arXiv 1901.08573)
    and the code that descends from it, and of advertorch."""
    return x + threat.project((x + delta).clamp(0, 1) - x)


def ball_first(threat: Threat, x: Tensor, delta: Tensor) -> Tensor:
    """Shrunk into the ball, then clamped to the box: the L2 attack of MART."""
    return (x + threat.project(delta)).clamp(0, 1)


PROJECTIONS: dict[str, Callable[[Threat, Tensor, Tensor], Tensor]] = {
    "exact": Threat.apply,
    "box-first": box_first,
    "ball-first": ball_first,
}
"""From threat, x (B, ...) and delta to x_adv in ball and box.

"exact" is the nearest such point. The other two are not, in L2 and L1 where the box bites; they
are here because published results were made with them. In Linf all three are the same point.
"""


def within(threat: Threat, x: Tensor, delta: Tensor, how: str, reach: Reach) -> Tensor:
    """x + delta in the box and in the ball of `reach` times the radius; "box": in the box alone."""
    if reach == "box":
        return (x + delta).clamp(0, 1)
    ball = threat if reach == 1 else Threat(threat.norm, reach * threat.eps)
    return PROJECTIONS[how](ball, x, delta)
