"""The page of a comparison, from what was matched and from the runs that it is about.

Nothing that a run names is executed: recipes are read as plain values.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rpat_cli.errors import RpatError
from rpat_cli.recipe.layers import read_yaml
from rpat_cli.records.run_folder import RunFolder, is_run
from rpat_cli.reports.comparison_page import ComparedPage, ComparedSide, render_comparison
from rpat_cli.reports.overview import cost_of_training, day, hardware
from rpat_cli.reports.training import Training, read_training
from rpat_cli.reports.training_charts import Curves
from rpat_cli.runs.choosing import differences, shown
from rpat_cli.runs.listing import method_of
from rpat_cli.runs.matched import Matched
from rpat_cli.text import count


def comparison_page(
    matched: Matched,
    named: tuple[Path, Path],
    *,
    file: Path,
    checkpoint: str | None,
    most: int | None,
) -> str:
    """The whole page, as HTML.

    `named`: what A and B are, as given to `match` with `checkpoint`. `file`: where the page is
    going to be, from which it links to reports. `most` images are listed for each attack and model
    (None: all).
    """
    remarks = list(matched.remarks)
    runs = [_run_of(path) for path in named]
    recipes = [_recipe(run, remarks) for run in runs]
    titles = _titles(named, recipes)
    sides = []
    for place, (name, which, files) in enumerate(matched.measured):
        training = _training(runs[place], recipes[place], remarks)
        side = ComparedSide(
            name=name,
            title=titles[place],
            path=str(named[place]),
            checkpoint=which,
            files=files,
            facts=_facts(recipes[place], training),
            page=_link(runs[place], file.parent),
            curves=Curves(training.records, training.best_epoch()) if training else None,
        )
        sides.append(side)
    a, b = sides
    chosen = ["--checkpoint", checkpoint] if checkpoint else []
    chosen += [*(["--changed"] if most is None else []), "--page", str(file)]
    return render_comparison(
        ComparedPage(
            a=a,
            b=b,
            comparisons=matched.comparisons,
            images=_images(matched),
            threat=matched.threat,
            remarks=remarks,
            recipes=_differing(*recipes),
            commands=_commands(named, runs, chosen),
            most=most,
        )
    )


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[str, str]] | None:
    """The keys that differ, with both values; None without two recipes."""
    if not a or not b:
        return None
    found = differences(a, b)
    return {key: (shown(one), shown(other)) for key, (one, other) in found.items()}


def _run_of(path: Path) -> RunFolder | None:
    """The run that was named, or that an evaluation's file lies in."""
    folder = path if path.is_dir() else path.absolute().parent.parent
    return RunFolder(folder) if is_run(folder) else None


def _recipe(run: RunFolder | None, remarks: list[str]) -> Mapping[str, Any]:
    """Plain values; empty without a recipe that can be read."""
    if run is None:
        return {}
    try:
        return read_yaml(run.recipe).values
    except RpatError as error:
        remarks.append(f"{run.recipe} cannot be read: {error}")
        return {}


def _training(
    run: RunFolder | None, recipe: Mapping[str, Any], remarks: list[str]
) -> Training | None:
    epochs = recipe.get("epochs")
    if run is None or not isinstance(epochs, int):
        return None
    said: list[str] = []
    training = read_training(run, epochs, said)
    remarks += [f"{run.path}: {remark}" for remark in said]
    return training


def _titles(named: tuple[Path, Path], recipes: list[Mapping[str, Any]]) -> list[str]:
    """The methods, where they tell the two apart; otherwise the names of runs and files."""
    methods = [method_of(recipe) for recipe in recipes]
    if all(methods) and methods[0] != methods[1]:
        return methods
    names = [path.absolute().name for path in named]
    return names if names[0] != names[1] else [str(path) for path in named]


def _facts(recipe: Mapping[str, Any], training: Training | None) -> dict[str, str]:
    if not recipe:
        return {}
    facts = {
        "trained by": ", ".join(filter(None, [method_of(recipe), str(recipe.get("model", ""))])),
        "seed": str(recipe.get("seed", "")),
    }
    if training and training.done:
        best = training.best_epoch()
        facts["epochs"] = f"{training.done}{'' if best is None else f', the best is {best}'}"
        facts["trained"] = day(training.environment.get("time"))
        facts["hardware"] = hardware(training.environment)
        facts["cost"] = cost_of_training(training.records) if training.records else ""
    return {heading: text for heading, text in facts.items() if text}


def _link(run: RunFolder | None, folder: Path) -> str:
    """The address of a run's report, seen from the folder of the page; "" without one."""
    if run is None or not run.html.is_file():
        return ""
    try:
        place = os.path.relpath(run.html.resolve(), folder.resolve())
    except ValueError:  # on another drive of Windows
        return ""
    return quote(Path(place).as_posix(), errors="surrogateescape")


def _images(matched: Matched) -> str:
    n = count(matched.comparisons[0].a.n)
    if matched.limit is None:
        return f"all {n} test images of {matched.data}"
    chosen = "" if isinstance(matched.limit, int) else f" ({matched.limit})"
    return f"{n} test images of {matched.data}{chosen}"


def _commands(
    named: tuple[Path, Path], runs: list[RunFolder | None], chosen: list[str]
) -> list[str]:
    commands = [["rpat", "compare", *map(str, named), *chosen]]
    if all(runs):
        commands.append(["rpat", "runs", "diff", *(str(run.path) for run in runs if run)])
    return [shlex.join(command) for command in commands]
