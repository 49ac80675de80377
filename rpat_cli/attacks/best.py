"""The best adversarial example found so far, sample by sample."""

import torch
from torch import Tensor


class Best:
    """For each sample of a batch, the point that fools the model or else has the highest loss.

    `x` is (B, C, H, W). `y` are (B,) classes, or None where nothing counts as fooled: then the loss
    alone decides. `x_adv` (B, C, H, W) are the best points, `fooled` (B,) says which fool it.
    """

    def __init__(self, x: Tensor, y: Tensor | None) -> None:
        self._y = y
        self.x_adv = x.clone()
        self.fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.loss = torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)

    def update(self, at: Tensor, x_adv: Tensor, losses: Tensor, logits: Tensor) -> Tensor:
        """Keep the points `x_adv` of the samples `at` (M,) where they are better than before.

        `losses` are (M,), or a scalar for the batch as a whole; `logits` are (M, classes). Returns
        (M,) bool: which of the points fool the model.
        """
        fooled = self.fools(at, logits)
        self.settle(at, x_adv, losses, fooled)
        return fooled

    def fools(self, at: Tensor, logits: Tensor) -> Tensor:
        """(M,) bool: which of the points of the samples `at` with these logits fool the model."""
        if self._y is None:
            return torch.zeros_like(at, dtype=torch.bool)
        return logits.argmax(dim=1) != self._y[at]

    def settle(self, at: Tensor, x_adv: Tensor, losses: Tensor, fooled: Tensor) -> None:
        """`update` of points of which is known, (M,) `fooled`, whether they fool the model."""
        losses = losses.detach().to(self.loss).expand(len(at))
        was_fooled = self.fooled[at]
        higher = (fooled == was_fooled) & (losses > self.loss[at])
        better = (fooled & ~was_fooled) | higher
        which = at[better]
        self.x_adv[which] = x_adv[better]
        self.loss[which] = losses[better]
        self.fooled[which] = fooled[better]
