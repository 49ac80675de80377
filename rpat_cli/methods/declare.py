"""What a method or regularizer declares to those who build a run, with the usual answers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypedDict, Unpack

from pydantic import ConfigDict

from rpat_cli.registry import SETTINGS_OF_ENTRIES


class AttackSettings(TypedDict, total=False):
    """The settings of the training attack that a method's paper may fix."""

    start: Literal["uniform", "gaussian", "zero"]
    bn_mode: Literal["eval", "train"]
    steps: int


def attack_settings(**settings: Unpack[AttackSettings]) -> Mapping[str, Any]:
    """A method's `attack_defaults`, read-only. What is left out is a uniform start, BatchNorm in
    eval mode, and as many steps as the recipe has."""
    return MappingProxyType({"start": "uniform", "bn_mode": "eval"} | dict(settings))


class Needs:
    """A method or regularizer inherits this and sets only what is different about it:
    `views = 2`, `needs_class = True`. These are class attributes, never hyper-parameters.

    `rpat_cli.methods.base.Method` and `Regularizer` are the protocols that it answers.
    """

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS_OF_ENTRIES

    views: ClassVar[int] = 1
    """Augmented views per image; with 2, a batch is [view1; view2]."""
    needs_class: ClassVar[bool] = False
    """Is it defined only where every image has one class, so not on labels of mixed images?"""
    attack_defaults: ClassVar[Mapping[str, Any]] = attack_settings()
    """Settings of the training attack that this method's paper fixes."""
    ra_form: ClassVar[str] = "mse"
    """The form of robust perception that its paper uses with this method."""

    @property
    def needs_teacher(self) -> bool:
        """Does it read `StepContext.teacher`, the weight-averaged model?"""
        return False

    @property
    def replaces_teacher_term(self) -> bool:
        """Does this regularizer replace the teacher term of a method that has one?"""
        return False
