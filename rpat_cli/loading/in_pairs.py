"""Networks that fail on a single image: some lose the batch's dimension there, others normalize
over the batch."""

from math import prod

import torch
from torch import Tensor, nn


class InPairs(nn.Module):
    """A network that gets every single image together with another one, always the same. Batches of
    two and more images are passed on as they are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != 1:
            return self.model(x)  # type: ignore[no-any-return]
        logits: Tensor = self.model(torch.cat([x, companion(x)]))
        return logits[:1]


REMARK = (
    "the model fails on a single image: it gets each such image together with another one. If its "
    "answers depend on the other images of a batch, rpat eval --check says so"
)


def companion(x: Tensor) -> Tensor:
    """An image (1, C, H, W) that is not of one color: networks that standardize each image divide
    by its deviation."""
    shape = x.shape[1:]
    image = torch.linspace(0.25, 0.75, prod(shape), device=x.device, dtype=x.dtype)
    return image.view(1, *shape)
