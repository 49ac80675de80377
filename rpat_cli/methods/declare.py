"""What a method or regularizer asks of those who build a run, as class attributes with the usual
answers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import ConfigDict


class Needs:
    """Constants only: a method or regularizer inherits them and states what is different about
    it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    views: ClassVar[int] = 1
    """Augmented views per image; with 2, a batch is [view1; view2]."""
    needs_class: ClassVar[bool] = False
    """Is it defined only where every image has one class, so not on labels of mixed images?"""
    attack_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"start": "uniform", "bn_mode": "eval"}
    )
    """Fields of `PGD` that this method's paper sets."""
    ra_form: ClassVar[str] = "mse"
    """The form of robust perception that its paper puts on this method."""

    @property
    def needs_teacher(self) -> bool:
        """Does it read `StepContext.teacher`, the weight-averaged model?"""
        return False
