"""Any regularizer on any method."""

from dataclasses import dataclass, replace
from typing import Any

from rpat_cli.errors import ConfigError
from rpat_cli.methods.base import Method, Outcome, Regularizer, StepContext


@dataclass(frozen=True)
class Composite:
    """A method with regularizers: their terms beside its own.

    `guide` is the regularizer whose term the method takes in place of its own (`takes_guide`,
    `is_guide`).
    """

    method: Any
    regularizers: tuple[Any, ...] = ()
    guide: Any = None

    @property
    def views(self) -> int:
        """Augmented views per image: as many as the part that needs most."""
        return max(
            int(part.views)
            for part in (self.method, *self.regularizers, *filter(None, [self.guide]))
        )

    def __call__(self, step: StepContext) -> Outcome:
        outcome: Outcome = self.method(step, self.guide) if self.guide else self.method(step)
        terms = dict(outcome.terms)
        for regularizer in self.regularizers:
            added = regularizer(step, outcome)
            twice = sorted(terms.keys() & added.keys())
            if twice:
                raise ConfigError(
                    f"two parts of the method call a loss term {twice[0]!r}; carry each "
                    "regularizer once."
                )
            terms |= added
        return replace(outcome, terms=terms)


def compose(method: Method, *regularizers: Regularizer) -> Composite:
    """The method carrying the regularizers (or none).

    A regularizer that guides (`teacher-kl`) takes the place of the method's own teacher term, where
    it has one. Raises `ConfigError`, on the first step, if two parts use one name for their terms.
    """
    takes_guide = bool(getattr(method, "takes_guide", False))
    guides = [each for each in regularizers if takes_guide and getattr(each, "is_guide", False)]
    if len(guides) > 1:
        raise ConfigError(
            "two regularizers want to replace the method's teacher term; carry one of them."
        )
    others = tuple(each for each in regularizers if each not in guides)
    return Composite(method, others, *guides)
