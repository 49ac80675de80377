"""The search of Square in Linf (Andriushchenko et al., ECCV 2020, arXiv 1912.00049), as AutoAttack
runs it: with the margin as its loss, without targets.

The library copies all images some ten times for each of its 5,000 queries, of which one square is
different. This one changes and takes back that square alone: the same draws, queries and images to
the bit.
"""

import math
from typing import Any

import torch
from torch import Tensor

from rpat_cli.attacks.losses import margin


def search_squares(attack: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """In the place of `attack.attack_single_run`, of the library's Square: queries (N,) and best
    images, shaped like `x` (N, C, H, W), pixels in [0, 1]; `y` (N,) are the classes."""
    count, channels, height, width = x.shape
    found = (x + attack.eps * attack.random_choice([count, channels, 1, width])).clamp_(0, 1)
    margins = margin(attack.predict(found), y)
    queries = torch.ones(count, device=x.device)
    if (margins < 0).all():
        return queries, found
    at = (margins > 0).nonzero().squeeze(1)
    best, y, margins = found[at], y[at], margins[at]
    lower, upper = ((x[at] + radius).clamp_(0, 1) for radius in (-attack.eps, attack.eps))
    for query in range(attack.n_queries):
        if not len(at):
            break
        area = attack.p_selection(query) * x[0].numel() / channels
        side = max(round(math.sqrt(area)), 1)
        side = min(side, height, width)
        top, left = (int(attack.random_int(0, size - side)) for size in (height, width))
        where = (..., slice(top, top + side), slice(left, left + side))
        square, change = best[where], 2.0 * attack.eps * attack.random_choice([channels, 1, 1])
        before = square.clone()
        square.add_(change).clamp_(lower[where], upper[where])
        seen = margin(attack.predict(best), y)
        improved = (seen < margins) | (seen <= 0)
        square.copy_(torch.where(improved.view(-1, 1, 1, 1), square, before))
        share = improved.to(seen.dtype)  # not `where`: what is NaN leaves the search, as theirs
        margins = share * seen + (1 - share) * margins
        queries[at] += 1
        going = margins > 0
        if not going.all():
            found[at[~going]] = best[~going]
            at, best, y, margins = at[going], best[going], y[going], margins[going]
            lower, upper = lower[going], upper[going]
    found[at] = best
    return queries, found
