"""What is known of one attack: a row of the catalogue.

Nothing here imports torch before an attack is built.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from typing import Any

from rpat_cli.attacks.threat import DEFAULT_EPS, Threat
from rpat_cli.errors import ConfigError, MissingExtraError, Problem, UserCodeError, unknown
from rpat_cli.user_code import is_brought, where_defined

Setting = int | float | str | tuple[str, ...]
Cost = Callable[[Mapping[str, Any]], float]
"""From the settings of an attack to its cost in forward passes for each image."""

STEP = 3.0
"""Forward passes that a gradient step costs: one, and a backward pass of about twice the time."""

STEPPING = ("steps", "step_size", "keep", "eot")
ITERATIVE = (*STEPPING, "restarts")

SETTINGS: Mapping[str, str] = {
    "steps": "steps from each start and toward each target",
    "step_size": "length of one step, for pixels in [0, 1] (default: follows eps and the norm)",
    "restarts": "starts, one after another; an image that is broken takes no part in the next",
    "eot": "passes whose mean is each gradient (EOT), for models that are random; usual: 20",
    "keep": "last (default): the point after all steps; worst: the worst on the way",
    "loss": "inner loss: ce, dlr, margin, or pm (margin of probabilities)",
    "targets": "classes to attack toward, the likeliest first; at most all others",
    "candidates": "likeliest classes of which the nearest become targets (default: 100)",
    "rounds": "rounds of A3, of its 13",
    "queries": "forward passes for each image",
    "width": "points of accuracy that AutoAttack may be lower, as surely as level says",
    "level": "probability that the bound holds (default: 0.95)",
}
"""What a suite may write behind a word, in one line each: `takes` of a row names some of them."""


def passes_per_step(passes: float) -> Cost:
    """The cost of attacks whose steps take so many forward passes each."""
    repeated = ("steps", "restarts", "eot")
    return lambda settings: passes * prod(settings.get(key, 1) for key in repeated)


gradient_steps = passes_per_step(STEP)
"""The cost of attacks that follow a gradient, and of those of which nothing else is known."""


def queries(settings: Mapping[str, Any]) -> float:
    """The cost of attacks with a budget of queries."""
    return float(settings["queries"])


@dataclass(frozen=True)
class AttackRow:
    """One attack.

    build: a callable `(threat, **settings) -> attack`, or where to import it: "module:attribute".
    description: one line for people.
    name: its word in a suite; the catalogue fills it in.
    fixed: settings that tell it from other attacks of the same `build`.
    defaults: settings that its bare word stands for in a suite; `pgd` is `pgd-20`.
    takes: settings that a suite or a flag may change.
    counts: the setting that N means in the word `name-N`.
    form: how it is written where its name alone is not a word of a suite, such as `transfer:RUN`.
    recorded_as: its name in results, if it differs from `name`.
    norms: the norms of the threat models that it is defined for.
    follows_gradient: it cannot take a step on a model that no gradient comes through.
    transfers: it may make images on one model for another.
    trains: it may make training examples.
    in_training: settings that it has there in place of its own defaults.
    needs_class: it is not defined for mixed labels (MixUp, CutMix).
    minimizes: it looks for the smallest perturbation, whatever the radius of the threat.
    cost: forward passes for each image, from its settings.
    extra, package: the extra of this package that installs what it needs, and what that is.
    """

    build: str | Callable[..., Any]
    description: str = "an attack of a plugin"
    name: str = ""
    fixed: Mapping[str, Setting] = field(default_factory=dict)
    defaults: Mapping[str, Setting] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    counts: str = "steps"
    form: str = ""
    recorded_as: str = ""
    norms: tuple[str, ...] = tuple(DEFAULT_EPS)
    follows_gradient: bool = False
    transfers: bool = False
    trains: bool = False
    in_training: Mapping[str, Setting] = field(default_factory=dict)
    needs_class: bool = False
    minimizes: bool = False
    cost: Cost = gradient_steps
    extra: str = ""
    package: str = ""

    def __call__(self, threat: Threat, **settings: Any) -> Any:
        """Build the attack.

        Raises `ConfigError` for a norm that it is not defined for and for settings that it does not
        take, `MissingExtraError` if what it needs is not installed.
        """
        self._check_norm(threat.norm)
        self._check_installed()
        settings = {**self.fixed, **settings}
        self._check_settings(threat, settings)
        attack = self._builder(threat, **settings)
        if is_brought(self._builder) and not callable(attack):
            raise UserCodeError(
                f"{where_defined(self._builder)}: the attack {self.name!r} must be a function "
                "(threat, **settings) that returns an attack, called as attack(model, x, y); it "
                f"returned {type(attack).__name__}."
            )
        return attack

    def for_training(self, threat: Threat, settings: Mapping[str, Any]) -> Any:
        """Build the attack with a recipe's settings, of which it may not take all.

        A recipe states steps, start and mode of every attack; one that has no such setting goes
        its own way. Raises what building raises.
        """
        everywhere = {"start", "bn_mode", "steps", "step_size"}
        if settings.get("restarts") == 1:
            everywhere.add("restarts")
        ignored = {key for key in everywhere if not self.accepts(key)}
        taken = {key: settings[key] for key in settings if key not in ignored}
        return self(threat, **{**self.in_training, **taken})

    def accepts(self, setting: str) -> bool:
        """Is there a parameter of this name in its signature, or one for all names?"""
        parameters = _parameters(self._builder)
        return setting in parameters or _takes_any(self._builder)

    def passes(self, settings: Mapping[str, Any]) -> float:
        """Forward passes for each image, or as long, with these settings; at least one."""
        return max(1.0, float(self.cost(settings)))

    @property
    def _builder(self) -> Callable[..., Any]:
        if not isinstance(self.build, str):
            return self.build
        module, _, attribute = self.build.partition(":")
        builder: Callable[..., Any] = getattr(import_module(module), attribute)
        return builder

    def _check_norm(self, norm: str) -> None:
        if norm in self.norms:
            return
        defined = " or ".join(self.norms)
        message = f"is defined in {defined}, not in {norm}."
        if self.minimizes:
            message = f"minimizes {defined}; its success within a radius in {norm} is undefined."
        hint = f"Use --norm {self.norms[0]}, or another attack (rpat eval --attack list)."
        raise ConfigError(Problem("", message, self.name, hint))

    def _check_installed(self) -> None:
        if not self.package:
            return
        try:
            import_module(self.package)
        except ModuleNotFoundError as error:
            if error.name != self.package:
                raise
            raise MissingExtraError(f"the attack {self.name}", self.extra) from None

    def _check_settings(self, threat: Threat, settings: Mapping[str, Any]) -> None:
        strangers = [key for key in settings if not self.accepts(key)]
        if strangers:
            known = list(_parameters(self._builder))
            kind = f"setting of {self.name or 'the attack'}"
            raise ConfigError(*(unknown(kind, key, known) for key in strangers))
        try:
            inspect.signature(self._builder).bind(threat, **settings)
        except TypeError as error:  # such as "missing a required argument: 'step_size'"
            raise ConfigError(f"the attack {self.name!r}: {error}.") from None


def row_of(factory: Callable[..., Any]) -> AttackRow:
    """A row for a factory of which nothing else is said; its signature tells the settings.

    Such an attack is run on every model, may train and transfer, and is defined for every norm.
    With `**settings` it is taken to pass on those of an iterative attack.
    """
    parameters = _parameters(factory)
    takes = tuple(parameters)
    if _takes_any(factory):
        takes = tuple(dict.fromkeys([*takes, *ITERATIVE]))
    counts = "queries" if "queries" in takes and "steps" not in takes else "steps"
    count = parameters[counts].default if counts in parameters else None
    return AttackRow(
        factory,
        description=_first_line(factory) or AttackRow.description,
        defaults={counts: count} if isinstance(count, int) else {},
        takes=takes,
        counts=counts,
        transfers=True,
        trains=True,
        cost=queries if counts == "queries" and count is not None else gradient_steps,
    )


def _parameters(build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The settings of an attack: all parameters but the first, which is the threat."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(build).parameters.values())[1:]
    return {each.name: each for each in parameters if each.kind in by_name}


def _takes_any(build: Callable[..., Any]) -> bool:
    kinds = [each.kind for each in inspect.signature(build).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def _first_line(factory: Callable[..., Any]) -> str:
    """Of its docstring; a dataclass without one gets its signature for a docstring."""
    text = inspect.getdoc(factory) or ""
    is_signature = text.startswith(f"{getattr(factory, '__name__', '')}(")
    return "" if is_signature else text.partition("\n")[0].rstrip(".")
