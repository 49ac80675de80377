"""`rpat eval`."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rpat_cli.cli import ci_options, console
from rpat_cli.cli import eval_options as o
from rpat_cli.cli.diagnostic_options import with_diagnostics
from rpat_cli.cli.options import parse_choice, parse_count, parse_jobs
from rpat_cli.cli.printing import Printing
from rpat_cli.cli.splice import spliced
from rpat_cli.diagnostics import DIAGNOSTICS
from rpat_cli.errors import ConfigError, Mistakes, Problem
from rpat_cli.evaluation.suite import AttackSpec, Overrides, list_attacks
from rpat_cli.models import list_models
from rpat_cli.recipe.layers import Layer, code_named_in, flag_layers, parse_assignments
from rpat_cli.recipe.plugins import load_plugins
from rpat_cli.recipe.suite_file import read_suite
from rpat_cli.recipe.trust import code_of_target, model_files, python_file, trusting
from rpat_cli.signals import importing
from rpat_cli.text import parse_number
from rpat_cli.user_code import speaking_on_stderr

if TYPE_CHECKING:
    from rpat_cli.data.choice import Limit

NOTHING: Mapping[str, Any] = {}


HELP = """Measure how robust a trained model is, on the whole test set, in float32.

Every adversarial image is checked to lie in the threat and in [0, 1], and predicted anew,
before it counts.

An evaluation that was stopped or killed goes on where it was when the same command is given
again.

The processes that torchrun starts, on one machine or several, share one evaluation.

Examples:

  rpat eval --attack autoattack

  rpat eval runs/my-run --attack clean,pgd-20,pgd-50x10,autoattack

  rpat eval runs/my-run/checkpoints/last.pt --norm L2 --eps 0.5 --attack quick

  rpat eval --attack pgd-50 --threat Linf:8/255 --threat L2:0.5 --threat L1:12

  rpat eval --attack autoattack:apgd-ce+square --json

  rpat eval --attack autoattack --audit 0.25

  rpat eval --attack pgd-50,transfer:runs/other,my-suite.yaml

  rpat eval --attack autoattack --limit 100 --jobs 4

  torchrun --nproc-per-node 8 -m rpat_cli eval --attack autoattack

  rpat eval --attack autoattack --fast

  rpat eval --attack pgd-50 --check --perception --eps-curve --loss-surface

  rpat eval --attack clean --corruptions ~/data/CIFAR-10-C --corruptions-baseline runs/standard

  rpat eval published/last.model --data cifar10 --data-root ~/data --attack autoattack

  rpat eval runs/my-run --attack quick --check --sarif rpat.sarif --junit rpat.xml

  rpat eval runs/my-run --test-data ~/data/cifar10.1_v6_data.npy --attack clean,pgd-20

  rpat eval published/model.pt:ema --data cifar10 --normalize none --attack autoattack

  rpat eval torchvision:resnet18 --data imagefolder --data-root ~/imagenet

  rpat eval robustbench:Wang2023Better_WRN-28-10 --data cifar10 --data-root ~/data

  rpat eval --model-file my.py:build --data cifar10 --attack pgd-50,autoattack

  rpat eval --plugin my_attack.py --attack my-attack-50

  rpat eval --attack apgd-ce,apgd-t --surrogate Quantize=identity
"""


@with_diagnostics(o.WHAT)
@spliced("flags", o.recipe_parameters(), o.by_flag)
@spliced("for_ci", ci_options.parameters(), ci_options.files_by_flag)
def evaluate(
    *,
    target: o.Target = None,
    attack: o.Attack = "standard",
    audit: o.Audit = None,
    flags: Mapping[str, Any] = NOTHING,
    steps: o.Steps = None,
    step_size: o.StepSize = None,
    restarts: o.Restarts = None,
    surrogate: o.Surrogates = None,
    checkpoint: o.Checkpoint = "best",
    model_file: o.ModelFile = None,
    limit: o.Limit = None,
    images: o.Images = None,
    diagnostics: Mapping[str, Mapping[str, Any]] = NOTHING,
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    assign: o.Assign = None,
    batch_size: o.BatchSize = None,
    jobs: o.JobCount = "auto",
    fast: o.Fast = False,
    out: o.Out = None,
    save_adv: o.SaveAdv = None,
    for_ci: Mapping[str, Path] = NOTHING,
    track: o.Track = None,
    quiet: o.Quiet = False,
    as_json: o.AsJson = False,
    json_full: o.JsonFull = False,
) -> None:
    """Measure how robust a trained model is, on the whole test set, in float32."""
    plugins = _loaded(plugin)  # first: other options may name its attacks and diagnostics
    if _listed(attack, diagnostics, flags.get("--model")):
        return
    mistakes = Mistakes()
    specs = _suite(mistakes, _audited(attack, audit), steps, step_size, restarts)
    changes = _changes(mistakes, {**flags, "--plugin": plugins or None}, assign or [])
    with mistakes.gathered():
        target = _target(target, model_file)
    how = _how(mistakes, checkpoint, limit, images, batch_size, jobs)
    how |= {"out": out, "save_adv": save_adv, "fast": fast, "track": track or [], "for_ci": for_ci}
    with _answered(trust, target, attack, changes, surrogate or []):
        _session().evaluate(
            target=target,
            specs=specs,
            changes=changes,
            diagnostics=diagnostics,
            printing=Printing(quiet, as_json, json_full),
            surrogates=surrogate or [],
            mistakes=mistakes,
            **how,
        )


def _suite(
    mistakes: Mistakes,
    text: str,
    steps: str | None,
    step_size: str | None,
    restarts: str | None,
) -> list[AttackSpec]:
    """The attacks, with what flags ask of those that leave it open."""
    overrides = Overrides(
        parse_count(mistakes, "--steps", steps),
        _number(mistakes, "--step-size", step_size),
        parse_count(mistakes, "--restarts", restarts),
    )
    with mistakes.gathered():
        return read_suite(text, overrides)
    return []


def _how(
    mistakes: Mistakes,
    checkpoint: str,
    limit: str | None,
    images: Path | None,
    batch_size: str | None,
    jobs: str,
) -> dict[str, Any]:
    """What is measured of the target, and how."""
    how: dict[str, Any] = {"limit": None, "jobs": 1}
    how["checkpoint"] = parse_choice(mistakes, "--checkpoint", checkpoint, o.CHECKPOINTS)
    how["batch_size"] = parse_count(mistakes, "--batch-size", batch_size)
    with mistakes.gathered():
        how["limit"] = _chosen(limit, images)
    with mistakes.gathered():
        how["jobs"] = parse_jobs(jobs)
    return how


def _answered(
    everything: bool,
    target: Path | None,
    attack: str,
    changes: Sequence[Layer],
    surrogates: Sequence[str],
) -> AbstractContextManager[None]:
    """What this command line answers for: the code that it names itself, or everything."""
    stand_ins = [python_file(text.partition("=")[2]) for text in surrogates]
    named = [*code_named_in(changes), *model_files(attack), *filter(None, stand_ins)]
    return trusting(everything=everything, files=[*named, *code_of_target(target)])


def _session() -> ModuleType:
    """Torch is imported here, not by `rpat --help`."""
    with importing():
        from rpat_cli.cli import session
    return session


def _loaded(plugin: list[str] | None) -> list[str]:
    with importing(), speaking_on_stderr():
        return load_plugins((file, "--plugin") for file in plugin or [])


def _listed(attack: str, diagnostics: Mapping[str, Any], model: str | None) -> bool:
    """`--attack list`, `--diagnostic list` and `--model list`: shown, if that was asked for."""
    if attack == "list":
        suite_file = (
            "a suite of your own: a list of these words, and of mappings {attack: pgd, steps: 50, "
            "...}"
        )
        console.out.print(console.glossary(list_attacks() | {"FILE.yaml": suite_file}))
    if "list" in diagnostics:
        console.out.print(console.glossary({name: row.help for name, row in DIAGNOSTICS.items()}))
    if model == "list":
        console.out.print(console.glossary(list_models()))
    return attack == "list" or "list" in diagnostics or model == "list"


def _changes(mistakes: Mistakes, flags: Mapping[str, Any], assignments: list[str]) -> list[Layer]:
    """Layers of a recipe: from `--set`, then from the flags that set its keys."""
    if flags.get("--threat") and (flags.get("--norm") or flags.get("--eps")):
        message = "cannot be combined with --norm and --eps: it names both."
        mistakes.add(Problem("", message, "--threat", "Example: --threat Linf:8/255"))
    layers: list[Layer] = []
    for assignment in assignments:
        with mistakes.gathered():
            layers += parse_assignments([assignment])
    given = {flag: (o.RECIPE_KEYS[flag], value) for flag, value in flags.items()}
    return [*layers, *flag_layers(given)]


def _chosen(limit: str | None, images: Path | None) -> "Limit | None":
    with importing():
        from rpat_cli.data.choice import chosen_by
    is_number = limit is not None and limit.removeprefix("-").isdecimal() and len(limit) < 19
    return chosen_by(int(limit) if limit is not None and is_number else limit, images)


def _target(target: Path | None, model_file: str | None) -> Path | None:
    """A model's function is named like any other target, once its form is known to be right."""
    if model_file is None:
        return target
    if target is not None:
        message = f"cannot be combined with {str(target)!r}: each of them names the model."
        raise ConfigError(Problem("", message, "--model-file", "Leave one of them out."))
    file, colon, function = model_file.rpartition(":")
    if not colon or not function or not file.endswith(".py"):
        message = f"{model_file!r} is not of the form FILE.py:FUNCTION."
        raise ConfigError(Problem("", message, "--model-file", "Example: my.py:build"))
    return Path(model_file)


def _audited(attack: str, audit: str | None) -> str:
    """`--audit 0.25` is the word `audit:0.25` at the end of the suite."""
    return attack if audit is None else f"{attack},audit:{audit.strip()}"


def _number(mistakes: Mistakes, flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(parse_number(text))
    except ValueError as error:
        mistakes.add(Problem("", f"{text!r} {error}.", flag))
        return None
