"""Options and arguments that the commands about finished runs share."""

from typing import Annotated

import typer

from rpat_cli.loading.named import BEST, NEWEST
from rpat_cli.records.run_folder import RUNS, is_run

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def complete_runs(incomplete: str) -> list[str]:
    """The runs under `runs/`, and the words for two of them, for the shell."""
    paths = [NEWEST, BEST]
    if RUNS.is_dir():
        paths += sorted(str(path) for path in RUNS.iterdir() if is_run(path))
    return [path for path in paths if path.startswith(incomplete)]
