"""The part of a recipe that says how weights follow their gradients."""

from typing import Annotated, Literal

from pydantic import Field

from rpat_cli.engine import OPTIMIZERS
from rpat_cli.recipe.components import Section, one_of
from rpat_cli.text import Number

Momentum = Annotated[Number, Field(ge=0, lt=1)]


class OptimizerSection(Section):
    name: Annotated[str, one_of(OPTIMIZERS)] = Field("sgd", description="optimizer")
    lr: Annotated[Number, Field(gt=0, le=1e6)] = Field(0.1, description="peak learning rate")
    momentum: Momentum = Field(0.9, description="momentum of SGD, beta1 of AdamW")
    beta2: Momentum | None = Field(None, description="beta2 of AdamW (default: 0.999)")
    cycle_momentum: tuple[Momentum, Momentum] | None = Field(
        None,
        description=(
            "lowest and highest momentum: it falls as the learning rate rises, as in torch's "
            "CyclicLR (0.8, 0.9) and OneCycleLR (0.85, 0.95) (default: constant)"
        ),
    )
    weight_decay: Annotated[Number, Field(ge=0, le=1e6)] = Field(5e-4, description="weight decay")
    decayed: Literal["all", "no-norms", "weights"] = Field(
        "all",
        description=(
            "what decays: all, no-norms (not the normalization layers), or weights (neither these "
            "nor biases)"
        ),
    )
    layer_decay: Annotated[Number, Field(gt=0, le=1)] = Field(
        1.0,
        description="factor of the learning rate from each stage of the network to the one before",
    )
    nesterov: bool = Field(False, description="Nesterov momentum")
    warmup_epochs: Annotated[Number, Field(ge=0)] = Field(
        0.0, description="epochs over which the learning rate rises from 0"
    )
    clip_norm: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        description=(
            "max gradient norm (L2): a larger gradient is scaled down to it (default: no limit)"
        ),
    )
