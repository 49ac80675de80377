"""The folder of a new run: a name that a person can read, and never one that is taken."""

from datetime import date
from pathlib import Path

from rpat_cli.errors import RunFolderError
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.files import free_name, user_path
from rpat_cli.records.run_folder import RUNS, RunFolder, is_run


def run_name(recipe: Recipe) -> str:
    """`2026-11-22_fashion-mini_small-cnn_consistency+ra_s0`"""
    return f"{date.today().isoformat()}_{recipe_name(recipe)}"


def recipe_name(recipe: Recipe) -> str:
    """`fashion-mini_small-cnn_consistency+ra_s0`"""
    parts = [recipe.method.name]
    if recipe.attack.name != "pgd":
        parts.append(recipe.attack.name)
    parts += [*sorted(recipe.regularizers()), *recipe.collaborators()]
    if recipe.mix:
        parts.append(recipe.mix.name)
    method = "+".join(parts)
    model = recipe.model.replace(":", "-").replace("/", "-")
    return f"{recipe.data.name}_{model}_{method}_s{recipe.seed}"


def plan_run(recipe: Recipe, out: Path | None = None) -> RunFolder:
    """Where a new run goes: `out`, or a new name under `runs/`. Nothing is made yet.

    Raises `RunFolderError` if `out` exists and is not empty, `ConfigError` if it can be no path.
    """
    if out is None:
        return RunFolder(free_name(RUNS / run_name(recipe)))
    user_path(out, "out")  # raises for what can be no path
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        advice = "Choose another --out; nothing is overwritten."
        if is_run(out):
            advice = f"Resume it with rpat train --resume {out}, or choose another --out."
        raise RunFolderError(f"{out} exists already and is not empty. {advice}")
    return RunFolder(out)


def create_run(recipe: Recipe, out: Path | None = None) -> RunFolder:
    """Make the folder of a new run, as planned by `plan_run`. Raises `RunFolderError` if it cannot
    be made."""
    folder = plan_run(recipe, out)
    try:
        try:
            folder.path.mkdir(parents=True, exist_ok=out is not None)
        except FileExistsError:  # another run has just taken the name
            return create_run(recipe, out)
        folder.checkpoint("last").parent.mkdir(exist_ok=True)
        folder.evals.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"cannot make the run folder {folder.path}: {error.strerror}. Choose a folder you "
            "may write to with --out."
        ) from error
    return folder
