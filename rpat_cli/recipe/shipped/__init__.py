"""Recipes that come with the package: `quickstart.yaml` is the recipe `quickstart`,
`base/sotas.yaml` is `base/sotas`.

Those under `base/` cannot be run on their own: other recipes extend them. The comment at the top of
each file is its header; the header's first line says what the recipe is.
"""

from pathlib import Path

from rpat_cli.errors import ConfigError, Problem, did_you_mean

FOLDER = Path(__file__).parent
BASES = "base/"
SWEEPS = "sweeps/"  # grids of runs: another kind of file
SHIPPED_SWEEPS = Path(__file__).parent / SWEEPS


def all_names() -> list[str]:
    """Every name that `extends` may give, bases included."""
    names = (path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
    return sorted(
        (name for name in names if not name.startswith(SWEEPS)),
        key=lambda name: ("/" in name, name),
    )


def recipe_names() -> list[str]:
    """The recipes that can be run as they are; the short ones, to try things out, come first."""
    return [name for name in all_names() if not name.startswith(BASES)]


def find(name: str, source: str = "--recipe") -> Path:
    """The file of a shipped recipe. Raises `ConfigError`, with the nearest name, if no recipe has
    this name."""
    names = all_names()
    if name in names:
        return FOLDER / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        hint = "To use a file of your own, pass it with --config."
    else:
        hint = f"{did_you_mean(name, names)} List them all with: rpat recipes".strip()
    raise ConfigError(Problem("", f"unknown recipe {name!r}.", source, hint))


def headline(name: str) -> str:
    """What the recipe is, in one line: the first line of its file."""
    return find(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
