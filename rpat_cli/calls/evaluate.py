"""`rpat.evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from rpat_cli.calls.imports import unnoticed
from rpat_cli.calls.options import (
    EvalKeys,
    EvaluateOptions,
    HowKeywords,
    PathLike,
    check_names,
    layers_from,
    several,
    with_options,
)
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.recipe.layers import Layer

if TYPE_CHECKING:
    from torch import nn

    from rpat_cli.calls.progress import Show
    from rpat_cli.calls.result import EvalResult
    from rpat_cli.calls.run import Run
    from rpat_cli.evaluation.suite import Overrides

CALL = "evaluate"


@with_options(EvaluateOptions)
def evaluate(
    target: "PathLike | Run | nn.Module | None" = None,
    attack: str | Sequence[str] = "standard",
    *,
    checkpoint: Literal["best", "last", "best_wa", "last_wa"] = "best",
    check: bool = False,
    diagnostics: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
    set: Mapping[str, Any] | None = None,
    plugin: PathLike | Sequence[PathLike] | None = None,
    trust: bool = False,
    track: str | Sequence[str] = (),
    progress: "Show" = None,
    **options: Unpack[EvaluateOptions],
) -> "EvalResult":
    """Measure how robust a model is, as `rpat eval` does.

    `target` is a run, a checkpoint file, `torchvision:NAME`, `timm:NAME`, `FILE.py:FUNCTION`, or a
    model in memory, which takes images in [0, 1]; without it, the newest run under `runs/`. All but
    runs need `data`: the name of a data set, or test images: `(x, y)`, a `Dataset` or a
    `DataLoader`. The results of models without a run go to `runs/external/NAME/evals/`.

    `attack` is what `--attack` takes, as one string or a list. `threat` is a `Threat` or
    "Linf:8/255", or several of them. `limit` evaluates on a stratified subset of that many test
    images, `limit="first:100"` on the first ones; `images`, a text file or a list of numbers or
    file names, on those. `surrogate`, {module: "identity", "relu", "FILE.py:FUNCTION" or a
    function}, are what the attacks' gradients pass in place of modules. `check=True` looks for
    gradient masking and the like; other `diagnostics` by their names, with settings as a mapping:
    `{"corruptions": {"folder": "CIFAR-10-C"}}`.

    `jobs`, `plugin`, `trust`, `track` and `progress` are as in `rpat.train`, the other keywords as
    the options of `rpat eval`. Raises `RpatError`s. The caller's process, and the model, come out
    as they went in.
    """
    with unnoticed():
        from rpat_cli.calls import session
        from rpat_cli.calls.model import opened_target
        from rpat_cli.calls.progress import showing
        from rpat_cli.calls.result import EvalResult
        from rpat_cli.runs.caller import images_in

    given: dict[str, Any] = dict(options)
    check_names(given, EvaluateOptions.__annotations__, CALL)
    how = {name: given.pop(name) for name in HowKeywords.__annotations__ if name in given}
    images, given = images_in(given, training=False)
    names_data = given.get("data") is not None
    module, beneath = opened_target(target, f"{CALL}()", names_data=names_data)
    plugins = [str(file) for file in several(plugin)]
    with showing(progress) as listener:
        measured = session.evaluation(
            module,
            _audited(attack, how.get("audit")),
            [*beneath, *_layers(given, set, plugins)],
            images,
            listener,
            _eval_options(how),
            checkpoint=checkpoint,
            overrides=_overrides(how),
            diagnostics=_wanted(diagnostics, check=check),
            surrogates=how.get("surrogate") or {},
            plugins=plugins,
            trust=trust,
            track=track,
        )
    return EvalResult.of(measured)


def _layers(
    given: dict[str, Any], assigned: Mapping[str, Any] | None, plugins: list[str]
) -> list[Layer]:
    from rpat_cli.cli.eval_options import RECIPE_KEYS

    if given.get("threat") is not None:
        if given.get("norm") or given.get("eps"):
            message = "cannot be combined with norm and eps: it names both."
            raise ConfigError(Problem("threat", message, f"{CALL}()"))
        given["threat"] = _threats(given["threat"])
    keys = {name: RECIPE_KEYS[f"--{name.replace('_', '-')}"] for name in EvalKeys.__annotations__}
    layers = layers_from(given, keys, assigned, CALL)
    if plugins:
        layers.append(Layer(f"{CALL}(plugin=...)", {"plugins": plugins}, by_user=True))
    return layers


def _threats(given: Any) -> list[str]:
    """`Threat("Linf", 8 / 255)`, "Linf:8/255", or several of them, as `--threat` takes them."""
    from rpat_cli.attacks.threat import Threat

    every = [given] if isinstance(given, str | Threat) else list(given)
    return [f"{each.norm}:{each.eps!r}" if isinstance(each, Threat) else each for each in every]


def _audited(attack: str | Sequence[str], width: Any) -> str | Sequence[str]:
    """`audit=0.25` is the word `audit:0.25` at the end of the suite."""
    if width is None:
        return attack
    return [*([attack] if isinstance(attack, str) else attack), f"audit:{width}"]


def _overrides(how: Mapping[str, Any]) -> "Overrides":
    from rpat_cli.calls.attacks import number
    from rpat_cli.evaluation.suite import Overrides

    size = how.get("step_size")
    step_size = None if size is None else number("step_size", size)
    return Overrides(how.get("steps"), step_size, how.get("restarts"))


def _eval_options(how: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `EvalOptions`."""
    from rpat_cli.data.choice import chosen_by

    files = {name: Path(how[name]) for name in ("out", "save_adv") if how.get(name)}
    others = {name: how[name] for name in ("batch_size", "jobs", "fast") if name in how}
    return {"limit": chosen_by(how.get("limit"), how.get("images")), **others, **files}


def _wanted(
    diagnostics: Sequence[str] | Mapping[str, Mapping[str, Any]], *, check: bool
) -> dict[str, Mapping[str, Any]]:
    """The diagnostics by name, each with its settings. `check` is that of `--check`."""
    wanted: dict[str, Mapping[str, Any]] = {"verdict": {}} if check else {}
    if isinstance(diagnostics, str):
        diagnostics = [diagnostics]
    if not isinstance(diagnostics, Mapping):
        diagnostics = {name: {} for name in diagnostics}
    return wanted | {name.replace("-", "_"): dict(given) for name, given in diagnostics.items()}
