"""The reference pages of the documentation site, made from what the program itself reads: the
fields of the recipe, the options of its commands, and its tables of names.

`pages()` gives their text; `hooks.py` hands it to mkdocs. Nothing here is written to the
repository, so it cannot go out of date.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import rpat
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.row import SETTINGS
from rpat_cli.cli.app import whole
from rpat_cli.data import AUGMENTATIONS, DATASETS, MIXINGS
from rpat_cli.diagnostics import DIAGNOSTICS
from rpat_cli.diagnostics.verdict.checks import CHECKS
from rpat_cli.engine import COLLABORATORS, OPTIMIZERS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.evaluation.words import list_attacks
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.models import MODELS
from rpat_cli.recipe.components import Section
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.shipped import headline, recipe_names
from rpat_cli.sweep.engines import ENGINES
from rpat_cli.sweep.spec import SweepSpec

Row = tuple[str, ...]
KEYS = ("key", "value", "default", "what it is")


def pages() -> dict[str, str]:
    """Every generated page: its path below docs/, and its Markdown."""
    return {
        "reference/commands.md": commands_page(),
        "reference/recipe.md": recipe_page(),
        "reference/sweep.md": sweep_page(),
        "reference/attacks.md": attacks_page(),
        "reference/names.md": names_page(),
        "reference/checks.md": checks_page(),
        "reference/recipes.md": shipped_page(),
        "reference/api.md": api_page(),
    }


# ---- Markdown


def table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(map(in_cell, line))} |\n" for line in lines) + "\n"


def in_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def plain(text: str) -> str:
    """Text of the program as Markdown: what looks like a tag, emphasis or a link is none."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([<>*_\[\]])", r"\\\1", part) for part in parts
    )


def code(text: object) -> str:
    return f"`{text}`"


# ---- commands


def commands(command: Any, path: str = "rpat") -> Iterator[tuple[str, Any]]:
    """Every command that can be run, by what one types."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def commands_page() -> str:
    text = "# Commands and options\n\nWhat `--help` says, of every command.\n\n"
    for path, command in commands(whole()):
        text += f"## {path}\n\n{help_as_markdown(command.help or '')}\n\n"
        shown = [option for option in command.params if not option.hidden]
        if shown:
            text += table(("option", "value", "default", "what it does"), map(option_row, shown))
    return text


def option_row(option: Any) -> Row:
    names = [*option.opts, *option.secondary_opts]
    if option.param_type_name == "argument":
        names = [option.metavar or option.name.upper()]
    value = "" if getattr(option, "is_flag", False) else option.metavar or option.type_descriptor
    default = option.default
    known = default not in (None, "", False, ()) and not callable(default)
    return (
        " ".join(map(code, names)),
        code(value) if isinstance(value, str) and value else "",
        code(default) if known else "",
        plain(re.sub(r"\[/?[a-z ]+\]", "", option.help or "")),
    )


def help_as_markdown(text: str) -> str:
    """A help text: its indented lines, which are examples, as one block of commands."""
    blocks = [block for block in inspect.cleandoc(text).split("\n\n") if block.strip()]
    said = ""
    for block in blocks:
        example = block.startswith("  ")
        said += f"    {block.strip()}\n" if example else f"\n{plain(block.strip())}\n\n"
    return said


# ---- the recipe


def recipe_page() -> str:
    text = (
        "# Recipe keys\n\nAll keys of a [recipe](../training.md#the-recipe), as `rpat` reads them. "
        "Every one of them can be set by `--set KEY=VALUE`.\n\n"
    )
    text += table(KEYS, keys_of(Recipe))
    text += "The settings behind a name, as in `{name: trades, beta: 6}`:\n\n"
    for key, entries in components().items():
        for name in entries:
            text += section(f"{key}: {name}", settings_of(entries[name], f"{key}."))
    text += "The settings of augmentations, as in `cutout:size=8`:\n\n"
    for name, factory in AUGMENTATIONS.items():
        text += section(f"augment: {name}", settings_of_factory(factory))
    return text


def section(title: str, rows: Iterable[Row]) -> str:
    rows = list(rows)
    return f"### {title}\n\n{table(KEYS, rows)}" if rows else ""


def sweep_page() -> str:
    text = (
        "# Keys of a sweep file\n\nAll keys of the files of `rpat sweep`; "
        "[Sweeps](../sweeps.md) shows how they are used together.\n\n"
    )
    text += table(KEYS, keys_of(SweepSpec))
    text += "The settings of an engine, as in `engine: {name: slurm, partition: gpu}`:\n\n"
    for name, engine in ENGINES.items():
        text += section(f"engine: {name}", keys_of(engine, "engine."))
    return text


def components() -> dict[str, Mapping[str, Any]]:
    """The keys that name an entry of a table, with its settings."""
    return {"method": METHODS, "mix": MIXINGS, "schedule": SCHEDULES}


def keys_of(section: type[BaseModel], before: str = "") -> Iterator[Row]:
    for name, field in section.model_fields.items():
        key = f"{before}{field.alias or name}"
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Section):
            yield from keys_of(field.annotation, f"{key}.")
            continue
        yield (code(key), type_of(key, field), default_of(field), plain(field.description or ""))
        for inner, name_of_keys in sections_in(field.annotation):
            yield from keys_of(inner, f"{key}{name_of_keys}.")
        for entries in (REGULARIZERS, COLLABORATORS):
            if not before and name in entries:
                yield from settings_of(entries[name], f"{key}.")


def sections_in(annotation: Any) -> Iterator[tuple[type[Section], str]]:
    """The sections of an optional field, or of one that has a section for each KEY."""
    if get_origin(annotation) is dict:
        inner = get_args(annotation)[1]
        if inspect.isclass(inner) and issubclass(inner, Section):
            yield inner, ".KEY"
    for member in get_args(annotation) if get_origin(annotation) in UNIONS else ():
        if inspect.isclass(member) and issubclass(member, Section):
            yield member, ""


def type_of(key: str, field: FieldInfo) -> str:
    if key in (*REGULARIZERS, *COLLABORATORS):
        return "`true`, `false` or settings"
    if key in components():
        return "a name, or a name with settings"
    return in_words(field.annotation)


def settings_of(entry: Any, before: str) -> Iterator[Row]:
    """The fields of a frozen dataclass, as keys."""
    if not is_dataclass(entry):
        return
    hints = get_type_hints(entry, include_extras=True)
    for field in fields(entry):
        default = "" if field.default is MISSING else shown(field.default)
        kind = hints[field.name]
        yield (code(before + field.name), in_words(kind), default, plain(description_of(kind)))


def settings_of_factory(factory: Any) -> Iterator[Row]:
    """The parameters of a function, but for the first."""
    _, *parameters = inspect.signature(factory, eval_str=True).parameters.values()
    for each in parameters:
        kind = each.annotation
        said = plain(description_of(kind))
        yield (code(each.name), in_words(kind), shown(each.default), said)


def description_of(annotation: Any) -> str:
    notes = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((note.description for note in notes if getattr(note, "description", None)), "")


def default_of(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "" if value is PydanticUndefined else shown(value)


def shown(value: object) -> str:
    empty = value is None or value in ("", [], {}, ())
    return "" if empty else code(in_yaml(value))


def in_yaml(value: object) -> str:
    """A default as one would write it in a recipe."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_yaml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "8/255" if value == 8 / 255 else f"{value:g}"
    return str(getattr(value, "name", value))


UNIONS = (Union, types.UnionType)

WORDS: Mapping[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "`true`, `false`",
}


def in_words(annotation: Any) -> str:
    """A type for people: `one of` for literals, `list of`, `number`, `whole number`, `text`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(inner[0])
    if origin in UNIONS:
        members = [in_words(member) for member in inner if member is not type(None)]
        return " or ".join(dict.fromkeys(members))
    if origin is Literal:
        return ", ".join(code(str(value).lower() if value is False else value) for value in inner)
    if origin in (list, tuple):
        return f"list of: {in_words(inner[0])}" if inner else "list"
    if origin is dict or (inspect.isclass(annotation) and issubclass(annotation, dict)):
        return "mapping"
    return WORDS.get(annotation, "any" if annotation is Any else "settings")


# ---- attacks, names, checks, recipes


def attacks_page() -> str:
    text = (
        "# Attacks\n\nEvery word of [`--attack`](../evaluating.md#attacks), from the catalogue. A "
        "setting follows its word: `pgd@steps=50`, or `pgd-50` for what a number means.\n\n"
    )
    words = list_attacks()
    suites = {word: line for word, line in words.items() if line.startswith("suite: ")}
    text += table(("suite", "attacks"), ((code(w), code(s[7:])) for w, s in suites.items()))
    head = ("word", "what it is", "norms", "a number means", "settings", "gradient", "trains")
    text += table(head, (attack_row(row) for row in ATTACKS.values()))
    text += (
        "*gradient*: it follows one. *trains*: it may make training examples "
        "(`rpat train --attack`). `autoattack:apgd-ce+square` is a choice of AutoAttack's "
        "parts.\n\n## Settings\n\nBehind a word, as in `pgd-50@step_size=2/255`, or as keys in "
        "a suite file.\n\n"
    )
    rows = ((code(name), plain(said)) for name, said in SETTINGS.items())
    return text + table(("setting", "what it is"), rows)


def attack_row(row: Any) -> Row:
    extra = f" (extra `{row.extra}`)" if row.extra else ""
    defaults = [f"{key}={value}" for key, value in row.defaults.items()]
    settings = [key for key in row.takes if key not in row.defaults]
    return (
        code(row.form or row.name),
        plain(row.description) + extra,
        ", ".join(row.norms),
        row.counts if row.counts in row.takes else "",
        ", ".join(map(code, [*defaults, *settings])),
        "yes" if row.follows_gradient else "no",
        "yes" if row.trains else "no",
    )


def first_paragraph(entry: Any) -> str:
    text = inspect.getdoc(entry) or ""
    return plain(text.split("\n\n")[0])


def names_page() -> str:
    text = "# Names\n\nThe tables that `rpat` reads names from, and what each entry is.\n\n"
    head = ("name", "what it is")
    described: dict[str, Mapping[str, Any]] = {
        "Methods (`--method`)": METHODS,
        "Regularizers": REGULARIZERS,
        "Around the optimizer (`--wa`, `--awp`, `--sam`)": COLLABORATORS,
        "Schedules (`--schedule`)": SCHEDULES,
        "Augmentations (`--augment`)": AUGMENTATIONS,
        "Mixing (`--mix`)": MIXINGS,
    }
    for title, entries in described.items():
        rows = ((code(name), first_paragraph(entries[name])) for name in entries)
        text += f"## {title}\n\n{table(head, rows)}"
    optimizers = ", ".join(map(code, OPTIMIZERS))
    text += f"## Optimizers (`--optimizer`)\n\n{optimizers}\n\n"
    text += f"## Models (`--model`)\n\n{', '.join(map(code, MODELS.forms()))}\n\n"
    text += "Also `torchvision:NAME` and `timm:NAME`; see [Models](../models.md).\n\n"
    data = ((code(name), data_of(DATASETS[name])) for name in DATASETS)
    text += f"## Data sets (`--data`)\n\n{table(head, data)}"
    rows = ((code(name), plain(row.help)) for name, row in DIAGNOSTICS.items())
    return text + f"## Diagnostics (`--diagnostic`)\n\n{table(head, rows)}"


def data_of(spec: Any) -> str:
    if not spec.shape:
        return "images of your own"
    return f"{' x '.join(map(str, spec.shape))}, {spec.classes} classes"


def checks_page() -> str:
    text = (
        "# Verdict checks\n\nWhat `rpat eval --check` looks at, in this order, and where each "
        "comes from. [Diagnostics](../diagnostics.md#is-that-robustness-real) says what each "
        "finds, and what to do about a WARN or FAIL.\n\n"
    )
    rows = ((str(n), check.name, plain(check.paper)) for n, check in enumerate(CHECKS, start=1))
    return text + table(("", "check", "source"), rows)


def shipped_page() -> str:
    text = (
        "# Shipped recipes\n\n`rpat recipes` lists them, `rpat recipes show NAME` prints one, "
        "`rpat train --recipe NAME` trains it.\n\n"
    )
    rows = ((code(name), plain(headline(name))) for name in recipe_names())
    return text + table(("recipe", "what it is"), rows)


# ---- the API


def public_names() -> dict[str, tuple[str, ...]]:
    """The public names of each module: those of `__all__`."""
    modules = ["rpat", *(f"rpat.{name}" for name in rpat.__all__ if is_module(name))]
    return {name: tuple(module_of(name).__all__) for name in modules}


def is_module(name: str) -> bool:
    return inspect.ismodule(getattr(rpat, name))


def module_of(name: str) -> Any:
    return rpat if name == "rpat" else getattr(rpat, name.removeprefix("rpat."))


def api_page() -> str:
    text = (
        "# Python API\n\nEvery public name, with its docstring. [Python](../python.md) shows how "
        "they are used together. Images are tensors (N, C, H, W) of pixels in [0, 1].\n\n"
    )
    for module, names in public_names().items():
        text += (
            f"## {module}\n\n{plain(inspect.getdoc(module_of(module)).split(chr(10) * 2)[0])}\n\n"
        )
        for name in names:
            text += entry_of_api(module, name)
    return text


def entry_of_api(module: str, name: str) -> str:
    value = getattr(module_of(module), name)
    heading = f"### {module}.{name} {{ #{module}.{name} }}\n\n"
    if inspect.ismodule(value):
        return f"{heading}The module [{module}.{name}](#{module.replace('.', '')}{name}).\n\n"
    if not has_docstring(value):
        return f"{heading}{said_of_value(value)}\n\n"
    return f"{heading}::: {value.__module__}.{value.__qualname__}\n\n"


def has_docstring(value: Any) -> bool:
    return isinstance(value, type | types.FunctionType)


def said_of_value(value: Any) -> str:
    if isinstance(value, str):
        return "The version, as text."
    if isinstance(value, Callable) and not isinstance(value, Mapping):
        return first_paragraph(value)
    return f"A table of names: {', '.join(map(code, value))}."
