"""Recipes that come with the package: `quickstart.yaml` is the recipe `quickstart`,
`base/sotas.yaml` is `base/sotas`.

Those under `base/` are no runs of their own: other recipes extend them. The comment at the top of
each file is its header; the header's first line says what the recipe is.
"""

from pathlib import Path

from rpat_cli.errors import ConfigError, Problem, did_you_mean

FOLDER = Path(__file__).parent
BASES = "base/"
ELSEWHERE = "sweeps/"  # grids of runs: another kind of file


def all_names() -> list[str]:
    """Every name that `extends` may give, bases included."""
    names = (path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
    return sorted(
        (name for name in names if not name.startswith(ELSEWHERE)),
        key=lambda name: ("/" in name, name),
    )


def recipe_names() -> list[str]:
    """The recipes that can be run as they are, the short ones for a first hour at the front."""
    return [name for name in all_names() if not name.startswith(BASES)]


def find(name: str, source: str = "--recipe") -> Path:
    """The file of a shipped recipe. Raises `ConfigError`, with the nearest name, if there is none
    of this name."""
    names = all_names()
    if name in names:
        return FOLDER / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        hint = "For a file of your own use --config."
    else:
        hint = f"{did_you_mean(name, names)} List them all with: rpat recipes".strip()
    raise ConfigError(Problem("", f"unknown recipe {name!r}.", source, hint))


def headline(name: str) -> str:
    """What the recipe is, in one line: the first line of its file."""
    return find(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
