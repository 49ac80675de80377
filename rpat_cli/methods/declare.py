"""What a method or regularizer declares to those who build a run, with the usual answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypedDict, Unpack

from pydantic import ConfigDict
from torch import Tensor

from rpat_cli.attacks.projection import Projection, Reach
from rpat_cli.attacks.side_effects import BnMode
from rpat_cli.attacks.start import Start
from rpat_cli.registry import SETTINGS_OF_ENTRIES


class AttackSettings(TypedDict, total=False):
    """The settings of the training attack that a method's paper may fix. `step_per_eps` is the step
    size as a multiple of eps; the others are those of `PGD`."""

    start: Start
    start_scale: float
    bn_mode: BnMode
    steps: int
    step_per_eps: float
    reach: Reach
    projection: Projection


def attack_settings(**settings: Unpack[AttackSettings]) -> Mapping[str, Any]:
    """A method's `attack_defaults`, read-only. What is left out is a uniform start, BatchNorm in
    eval mode, and as many steps as the recipe has."""
    return MappingProxyType({"start": "uniform", "bn_mode": "eval"} | dict(settings))


@dataclass(frozen=True)
class Frozen:
    """A further network of a method: from a run or checkpoint, in eval mode, never trained."""

    source: str


@dataclass(frozen=True)
class Averaged:
    """A further network: an average (EMA) of the trained model, all buffers included, in eval mode;
    a copy of the model until epoch `start_epoch`."""

    decay: float
    start_epoch: int = 0


@dataclass(frozen=True)
class TrainedAlong:
    """A further network, by its name among the models: trained by the same optimizer."""

    model: str


Network = Frozen | Averaged | TrainedAlong


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

    uses_attack: ClassVar[bool] = True
    """Does it train on what the recipe's attack makes, if that takes steps?"""
    leaves_ball: ClassVar[bool] = False
    """Does it train on points outside the ball on purpose?"""
    own_examples: ClassVar[bool] = False
    """Does it make its adversarial examples itself, with settings of the recipe's PGD?"""
    inner_loss: ClassVar[bool] = False
    """Does it give the attack a loss of its own to climb, in the place of the attack's?"""
    watches_steps: ClassVar[bool] = False
    """Does it watch the steps of the attack, which then has to be plain PGD?"""
    remembers: ClassVar[tuple[str, ...]] = ()
    """Names of tensors shaped like the images that it keeps for every training image: see
    `StepContext.memory`. They begin as zeros."""

    @property
    def networks(self) -> Mapping[str, Network]:
        """The further networks that it reads as `StepContext.networks`, by name."""
        return {}

    def initial_state(self, classes: int) -> dict[str, Tensor]:  # noqa: ARG002
        """The tensors that it keeps from step to step, as they begin: see `StepContext.state`.

        Over several ranks their mean is taken after every step, so they have to be such that a mean
        of them makes sense (sums and counts do, up to a factor).
        """
        return {}

    @property
    def needs_teacher(self) -> bool:
        """Does it read `StepContext.teacher`, the weight-averaged model?"""
        return False

    @property
    def replaces_teacher_term(self) -> bool:
        """Does this regularizer replace the teacher term of a method that has one?"""
        return False
