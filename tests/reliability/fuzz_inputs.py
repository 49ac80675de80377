"""Inputs as nobody should write them, drawn at random from a seed: recipes, `--set` strings, flags,
suites, suite files and sweep files.

Most start from something valid and put a strange value, or a strange key, at one or two places;
some are valid files with a few characters changed.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from rpat_cli.attacks import ATTACKS
from rpat_cli.cli.train_options import OPTIONS
from rpat_cli.data import AUGMENTATIONS, DATASETS, MIXINGS
from rpat_cli.engine import COLLABORATORS
from rpat_cli.engine.schedules import SCHEDULES
from rpat_cli.evaluation.suite import SUITES
from rpat_cli.methods import METHODS, REGULARIZERS
from rpat_cli.models import MODELS
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.shipped import find, recipe_names
from rpat_cli.sweep.spec import SweepSpec
from rpat_cli.sweep.sweep_file import SHIPPED

HUGE = "9" * 400

SCALARS = [
    "",
    "~",
    "null",
    "true",
    "false",
    "yes",
    "0",
    "-1",
    "1",
    "2",
    "3.5",
    "0.5",
    "-0.0",
    "1e-3",
    "1e309",
    "-1e309",
    ".inf",
    "-.inf",
    ".nan",
    "8/255",
    "1/0",
    "0/0",
    "1e400/1e400",
    "nan/2",
    "8 / 255",
    "0x10",
    "0b",
    "0o17",
    "0x" + "f" * 5000,
    "-0x" + "f" * 40,
    "0b" + "1" * 400,
    "1:" * 300 + "1",
    "1000000001",
    "1e39",
    "1e38",
    "-1e39",
    "1e-45",
    "5e-324",
    "1_000",
    "1:30",
    "2001-01-01",
    "2001-99-99",
    "2001-01-01T10:00:00Z",
    HUGE,
    f"-{HUGE}",
    f"1.{HUGE}",
    f"{HUGE}/{HUGE}",
    "9" * 5000,
    "18446744073709551616",
    "9223372036854775807",
    "4294967296",
    "1e20",
    "1000000000",
    "'8'",
    "'true'",
    "''",
    "' '",
    "none",
    "None",
    "name",
    "timm:",
    "timm:nope",
    "timm::",
    "timm:resnet18:x",
    "torchvision:",
    "torchvision:nope",
    "torchvision:resnet18",
    "torchvision:../x",
    ":",
    "':'",
    "a:b",
    "a.b",
    "..",
    "/",
    "/dev/null",
    "a/b.yaml",
    "missing.yaml",
    "~no-such-user/x.py",
    "~/x.py",
    "x.py",
    "x.py:f",
    "'[bold]'",
    "'%s %d {0} {}'",
    "é",
    "日本語",
    "'🙂'",
    '"\\0"',
    '"\\uD800"',
    '"\\x1b[31m"',
    '"a\\nb"',
    '"a|b"',
    "x" * 10000,
    "-",
    "--",
    "'-1'",
    "*",
    "&a x",
    "*a",
    "<<",
    "'<<'",
    "=",
    "!",
    "!!null x",
    "!!bool maybe",
    "!!int abc",
    "!!int ''",
    "!!float x",
    "!!float ''",
    "!!timestamp x",
    "!!binary x",
    "!!binary aGVsbG8=",
    "!!str 5",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!pairs [a: 1]",
    "!!seq x",
    "!!map x",
    "!!python/object:os.system x",
    "!!python/name:os.system",
    "!custom x",
    "!!python/tuple [1, 2]",
    "@x",
    "`x`",
    "%x",
    "? x",
]
"""YAML scalars as they are written."""

COLLECTIONS = [
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "[null]",
    "[1, two, 3.0]",
    "[a, [b, [c]]]",
    "{a: 1}",
    "{name: }",
    "{name: 5}",
    "{name: 0.5}",
    "{name: true}",
    "{name: [a]}",
    "{name: {a: b}}",
    "{name: {name: pgd}}",
    "{name: '', x: 1}",
    "{1: 2}",
    "{null: x}",
    "{true: x}",
    "{1.5: x}",
    "{[1, 2]: x}",
    "{{a: b}: x}",
    "{? [a] : b}",
    "{2001-01-01: x}",
    "{a: {b: {c: {d: 1}}}}",
    "{'': 1}",
    "{'a.b': 1}",
    "{a: 1, a: 2}",
    "{<<: x}",
    "{<<: {name: pgd}}",
    "{<<: [{a: 1}, {b: 2}]}",
    "&a [*a]",
    "&a {x: *a}",
    "[&a x, *a]",
    "{attack: }",
    "{attack: pgd, steps: }",
    "{attack: pgd, steps: 1e3}",
    "{attack: pgd, steps: 0}",
    f"{{attack: pgd, steps: {HUGE}}}",
    "{attack: pgd, step_size: 1/0}",
    f"{{attack: pgd, step_size: {HUGE}}}",
    "{attack: pgd, 5: 6}",
    "{attack: pgd, [1]: 6}",
    "{attack: pgd, keep: [worst]}",
    "{attack: pgd, keep: {a: 1}}",
    "{attack: pgd, label: 5}",
    "{attack: pgd, label: full}",
    "{attack: pgd, label: ''}",
    "{attack: [pgd]}",
    "{attack: 'transfer:', steps: 5}",
    "{attack: autoattack, steps: 5}",
    "{attack: full}",
    "{log: [1, 2]}",
    "{log: [-1, 2]}",
    f"{{log: [1, {HUGE}]}}",
    f"{{uniform: [0, {HUGE}]}}",
    f"{{integer: [0, {HUGE}]}}",
    "{uniform: [1, 0]}",
    "{uniform: [.nan, .inf]}",
    "{uniform: [-.inf, .inf]}",
    "{integer: [1.5, 2.5]}",
    "{choice: []}",
    "{choice: [[], {}]}",
    "{choice: 5}",
    "{choice: [1], log: [1, 2]}",
]

WORDS = [
    "pgd",
    "PGD",
    "pgd-",
    "pgd-0",
    "pgd-x",
    "pgd-20x",
    "pgd-20x0",
    "pgd-20x2x2",
    "pgd-20-2",
    "pgd--5",
    "pgd-²",
    "pgd-٣",
    f"pgd-{HUGE}",
    "pgd-" + "9" * 5000,
    f"pgd-5x{HUGE}",
    "pgd20",
    "-20",
    "20",
    "clean-5",
    "full-5",
    "full",
    "autoattack:",
    "autoattack:+",
    "autoattack:apgd-ce",
    "autoattack:apgd-ce+",
    "autoattack:pgd",
    "autoattack:apgd-ce@pgd",
    "autoattack-5",
    "transfer",
    "transfer:",
    "transfer:@",
    "transfer:@pgd",
    "transfer:x@",
    "transfer:x@@pgd",
    "transfer:x@clean",
    "transfer:x@transfer:y",
    "transfer:/",
    "transfer:..",
    "transfer:x\0y",
    "transfer:~",
    "transfer:~no-such-user/x.py:f",
    "transfer:x.py:f@pgd-5",
    "noise",
    "noise-5",
    "noise-5x5",
    "missing.yaml",
    ".yaml",
    "~no-such-user/x.yaml",
    "a\0b.yaml",
    "/dev/null.yaml",
    ",",
    ",,",
    " ",
    "",
    "@",
    ":",
    "a:b:c",
    "\n",
    "é",
    "x" * 10000,
    "\u017fquare",
    "İ",
]


def keys_of(section: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a section and of those in it."""
    for name, field in section.model_fields.items():
        yield prefix + (field.alias or name)
        inner = [field.annotation, *get_args(field.annotation)]
        for part in inner:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from keys_of(part, f"{prefix}{field.alias or name}.")


SWITCHES = [*REGULARIZERS, *COLLABORATORS]
EVERYTHING = Path(__file__).parent / "every_key_of_a_sweep.yaml"
SETTINGS = ["name", "beta", "weight", "mix", "form", "decay", "gamma", "start_epoch", "x", "1", ""]
RECIPE_KEYS = [
    *keys_of(Recipe),
    *(f"{key}.{setting}" for key in [*SWITCHES, "method", "schedule"] for setting in SETTINGS),
    *("", ".", "a", "a.b", "data.", ".data", "data..name", "1", "null", "plugins.0", "extends"),
    *("eval.0", "eval.0.attack", "data.augment.0", "__class__", "model_fields", "name"),
]
SWEEP_KEYS = [
    *keys_of(SweepSpec),
    *("grid.method", "grid.extends", "grid.optimizer.lr", "grid.seed", "grid.''", "zip.model"),
    *("random.samples", "random.seed", "random.axes", "random.axes.optimizer.lr", "engine.name"),
    *("search.asha", "search.optuna", "search.optuna.axes.epochs", "search.optuna.objective"),
    *("recipe.data", "recipe.method", "recipe.seed", "recipe.plugins", "recipe.''", "baseline.ra"),
]
ENTRIES = [
    *[*ATTACKS, *SUITES, *METHODS, *MODELS, *DATASETS, *MIXINGS, *AUGMENTATIONS, *SCHEDULES],
    *("slurm", "ray", "local", "asha", "optuna", "Linf", "L2", "linf"),
]


def strange(source: random.Random) -> str:
    """A YAML value."""
    kind = source.random()
    if kind < 0.5:
        return source.choice(SCALARS)
    if kind < 0.8:
        return source.choice(COLLECTIONS)
    if kind < 0.9:
        return f"{{name: {source.choice(ENTRIES)}, {source.choice(SETTINGS)}: {strange(source)}}}"
    return f"[{strange(source)}, {strange(source)}]" if kind < 0.95 else source.choice(ENTRIES)


def nested(key: str, value: str) -> str:
    """`a.b: v` as a block of YAML."""
    *outer, last = key.split(".")
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(outer)]
    return "\n".join([*lines, f"{'  ' * len(outer)}{last}: {value}"]) + "\n"


def changed(text: str, source: random.Random) -> str:
    """The text with a few characters removed, doubled or put in."""
    for _ in range(source.randint(1, 6)):
        place = source.randrange(len(text) + 1)
        action = source.randrange(4)
        if action == 0:
            text = text[:place] + text[place + source.randint(1, 5) :]
        elif action == 1:
            text = (
                text[:place] + source.choice("{}[]:,-#&*!|>'\"%@`\t\n .\0\ufeff0é") + text[place:]
            )
        elif action == 2:
            text = text[:place] + text[max(0, place - 5) : place] + text[place:]
        else:
            text = text[:place] + source.choice(SCALARS) + text[place:]
    return text


def with_strange_value(text: str, source: random.Random) -> str:
    """A valid file in which one value is a strange one."""
    lines = text.splitlines()
    places = [number for number, line in enumerate(lines) if ":" in line and line[0] != "#"]
    chosen = source.choice(places)
    key = lines[chosen].partition(":")[0]
    lines[chosen] = f"{key}: {strange(source)}"
    return "\n".join(lines) + "\n"


def document(source: random.Random, keys: list[str], valid: list[Path]) -> str:
    if source.random() < 0.5:
        change = source.choice([changed, with_strange_value, with_strange_value])
        return change(source.choice(valid).read_text(encoding="utf-8"), source)
    if source.random() < 0.05:
        return strange(source)
    text = "".join(
        nested(source.choice(keys), strange(source)) for _ in range(source.randint(1, 3))
    )
    return text


def recipe(source: random.Random) -> str:
    return document(source, RECIPE_KEYS, [find(name) for name in sorted(recipe_names())[:20]])


def sweep(source: random.Random) -> str:
    return document(source, SWEEP_KEYS, [*sorted(SHIPPED.glob("*.yaml")), EVERYTHING])


def assignment(source: random.Random) -> str:
    if source.random() < 0.1:
        return changed("optimizer.lr=0.05", source)
    return f"{source.choice(RECIPE_KEYS)}={strange(source)}"


def word(source: random.Random) -> str:
    if source.random() < 0.3:
        return changed(source.choice([*ATTACKS, "pgd-20x2", "autoattack:apgd-ce+square"]), source)
    return source.choice([*WORDS, *SCALARS])


def assignments(source: random.Random) -> str:
    return "\n".join(assignment(source) for _ in range(source.randint(2, 4)))


def flag(source: random.Random) -> str:
    """One of the flags of `rpat train` with a value as a shell would pass it on."""
    value = source.choice([strange(source), source.choice(WORDS), source.choice(ENTRIES)])
    return f"{source.choice(OPTIONS).long}={value}"


def suite(source: random.Random) -> str:
    return ",".join(word(source) for _ in range(source.randint(1, 3)))


def suite_file(source: random.Random) -> str:
    if source.random() < 0.1:
        return strange(source)
    items = [strange(source) for _ in range(source.randint(1, 3))]
    return "".join(f"- {item}\n" for item in items)


GENERATORS: dict[str, Callable[[random.Random], str]] = {
    "recipe": recipe,
    "set": assignment,
    "sets": assignments,
    "flag": flag,
    "suite": suite,
    "suite file": suite_file,
    "sweep": sweep,
}


def draw(seed: int) -> tuple[str, str]:
    """The kind and the text of input number `seed`."""
    source = random.Random(seed)
    kind = source.choice(list(GENERATORS))
    return kind, GENERATORS[kind](source)
