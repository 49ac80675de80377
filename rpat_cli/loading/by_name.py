"""A model's outputs and a data set's classes, matched by their names: a folder of ten of ImageNet's
classes has others at the places 0 to 9 than ImageNet."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from rpat_cli.loading.saved_model import SavedModel


class Reordered(nn.Module):
    """A model whose logits come in another order: output k is the `order[k]`-th of the model."""

    order: Tensor

    def __init__(self, model: nn.Module, order: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("order", torch.tensor(order))
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits[:, self.order]


def in_order_of(saved: SavedModel, class_names: Sequence[str]) -> SavedModel:
    """The model with the outputs of the data set's classes first, in their order, and a remark that
    says so. As it is where names are not known, differ, or are in order already."""
    outputs = [_folded(name) for name in saved.class_names]
    if len(outputs) != saved.architecture.classes:
        return saved
    wanted = [_folded(name) for name in class_names]
    # Two of ImageNet's classes are a crane: such a name says nothing.
    if any(outputs.count(name) != 1 or wanted.count(name) != 1 for name in wanted):
        return saved
    first = [outputs.index(name) for name in wanted]
    if first == list(range(len(first))):
        return saved
    order = [*first, *sorted(set(range(len(outputs))) - set(first))]
    remark = (
        "the model's outputs are matched to the data set's classes by their names: output "
        f"{first[0]} is {class_names[0]!r}, and so on to output {first[-1]}, {class_names[-1]!r}"
    )
    model = Reordered(saved.model, order)
    return replace(saved, model=model, remarks=(*saved.remarks, remark))


def _folded(name: str) -> str:
    return name.strip().casefold().replace("_", " ")
