"""Any regularizer on any method."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from rpat_cli.errors import ConfigError, UserCodeError
from rpat_cli.methods.base import HasTeacherTerm, Method, Outcome, Part, Regularizer, StepContext
from rpat_cli.methods.declare import Network
from rpat_cli.user_code import calling, where_defined


@dataclass(frozen=True)
class Composite:
    """A method together with regularizers, whose terms are added to its own: itself a `Method`.

    `teacher_term` is the regularizer that replaces the method's own teacher term, if one does.
    """

    method: Method
    regularizers: tuple[Regularizer, ...] = ()
    teacher_term: Regularizer | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        replacing = () if self.teacher_term is None else (self.teacher_term,)
        return (self.method, *self.regularizers, *replacing)

    @property
    def views(self) -> int:
        """Augmented views per image: as many as the part that needs most."""
        return max(part.views for part in self.parts)

    @property
    def needs_class(self) -> bool:
        return any(part.needs_class for part in self.parts)

    @property
    def needs_teacher(self) -> bool:
        return any(part.needs_teacher for part in self.parts)

    @property
    def attack_defaults(self) -> Mapping[str, Any]:
        return self.method.attack_defaults

    @property
    def networks(self) -> Mapping[str, Network]:
        return self.method.networks

    @property
    def remembers(self) -> tuple[str, ...]:
        return self.method.remembers

    @property
    def leaves_ball(self) -> bool:
        return self.method.leaves_ball

    @property
    def own_examples(self) -> bool:
        return self.method.own_examples

    def initial_state(self, classes: int) -> dict[str, Tensor]:
        return self.method.initial_state(classes)

    def __call__(self, step: StepContext) -> Outcome:
        """Raises `ConfigError` if two parts use one name for their terms."""
        outcome = self._outcome(step)
        terms = dict(outcome.terms)
        for regularizer in self.regularizers:
            with calling(regularizer, "regularizer(step, outcome)"):
                added = regularizer(step, outcome)
            _check_terms(regularizer, added)
            duplicates = sorted(terms.keys() & added.keys())
            if duplicates:
                raise ConfigError(
                    f"duplicate loss term {duplicates[0]!r}: two parts of the method use this "
                    "name. Add each regularizer only once."
                )
            terms |= added
        return replace(outcome, terms=terms)

    def _outcome(self, step: StepContext) -> Outcome:
        with calling(self.method, "method(step)"):
            if self.teacher_term is not None and isinstance(self.method, HasTeacherTerm):
                outcome = self.method.with_teacher_term(step, self.teacher_term)
            else:
                outcome = self.method(step)
        if not isinstance(outcome, Outcome):
            raise UserCodeError(
                f"{where_defined(self.method)}: a method returns an Outcome "
                "(rpat_cli.methods.base), with named loss terms, x, x_adv and logits_adv; this one "
                f"returned {type(outcome).__name__}."
            )
        _check_terms(self.method, outcome.terms)
        for key in ("x", "x_adv", "logits_adv"):
            if not isinstance(getattr(outcome, key), Tensor):
                given = type(getattr(outcome, key)).__name__
                raise UserCodeError(
                    f"{where_defined(self.method)}: {key} of its Outcome must be a tensor; it is "
                    f"of the type {given}."
                )
        return outcome


def _check_terms(part: Part, terms: object) -> None:
    """Raises `UserCodeError` for what are no named loss terms, each one number with a gradient."""
    if isinstance(terms, Mapping) and all(
        isinstance(name, str) and isinstance(term, Tensor) and term.ndim == 0
        for name, term in terms.items()
    ):
        return
    given = type(terms).__name__
    if isinstance(terms, Mapping):
        shapes = {
            name: tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
            for name, term in terms.items()
        }
        given = ", ".join(f"{name}: {shape}" for name, shape in shapes.items())
    raise UserCodeError(
        f"{where_defined(part)}: the loss terms must be a dict from names to scalar tensors, such "
        f'as {{"ce": cross_entropy(logits, y)}}; given {given}.'
    )


def compose(method: Method, *regularizers: Regularizer) -> Composite:
    """The method with the regularizers (or none).

    On a method that has a teacher term, a regularizer may replace it (`teacher-kl` does). Raises
    `ConfigError` if two want to.
    """
    if not isinstance(method, HasTeacherTerm):
        return Composite(method, regularizers)
    replacing = [each for each in regularizers if each.replaces_teacher_term]
    if len(replacing) > 1:
        raise ConfigError(
            "two regularizers would replace the method's teacher term. Keep only one of them."
        )
    others = tuple(each for each in regularizers if not each.replaces_teacher_term)
    return Composite(method, others, *replacing)
