"""One training by several processes: what `rpat train` does besides, as launcher, as rank 0 and as
any other rank. Importing this imports torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rpat_cli.cli import torchrun
from rpat_cli.engine.distributed import ALONE, Ranks
from rpat_cli.errors import ConfigError, Problem
from rpat_cli.evaluation.parallel import group
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.runs import launchers
from rpat_cli.runs.assist import assist
from rpat_cli.runs.threads import take_share_of_cores


@dataclass(frozen=True)
class Together:
    """What rank 0 knows of the others: `begun` is the run that they have begun already, before one
    of them had to be started again; `note` is to be called with the folder of a run begun now."""

    ranks: Ranks = ALONE
    begun: RunFolder | None = None
    note: Callable[[RunFolder], None] = lambda folder: None  # noqa: ARG005

    def over(self, folder: RunFolder) -> None:
        """The training has ended as it was meant to."""
        if self.ranks.size > 1:
            launchers.forget(folder)


def check_flags(ranks: int | None, gpus: int | None, *, dry_run: bool) -> None:
    """Raises `ConfigError` for flags that contradict each other or the launcher."""
    asked = ranks or gpus or 1
    problems = []
    if ranks is not None and gpus is not None:
        message = "cannot be combined with --gpus, which is --ranks on as many GPUs."
        problems.append(Problem("", message, "--ranks"))
    if dry_run and max(asked, torchrun.size()) > 1:
        message = "takes its steps in one process."
        problems.append(Problem("", message, "--dry-run", "Leave out --ranks and --gpus."))
    if torchrun.size() > 1 and asked not in (1, torchrun.local_size()):
        message = f"{asked}, but torchrun has started {torchrun.local_size()} processes here."
        flag = "--ranks" if ranks else "--gpus"
        problems.append(Problem("", message, flag, "Leave it out under torchrun."))
    if problems:
        raise ConfigError(*problems)


def launch_if_asked(ranks: int | None, gpus: int | None, recipe: Recipe | None) -> None:
    """Start the ranks that the flags ask for and exit as they do; return where this process is one
    of them, or the only one. `recipe` is that of a new run.

    Raises `ConfigError` for GPUs that are not there, or not to be used.
    """
    count = ranks or gpus or torchrun.number_in("RPAT_RANKS")
    nodes = torchrun.number_in("RPAT_NODES")
    if torchrun.size() > 1 or count * nodes == 1:
        return
    from rpat_cli.cli.launch import check_gpus, launch

    if gpus is not None:
        if recipe is not None and recipe.device not in ("auto", "cuda"):
            hint = "Use --ranks for processes on another device."
            message = f"cannot be combined with device {recipe.device!r}."
            raise ConfigError(Problem("", message, "--gpus", hint))
        check_gpus(gpus)
    raise torchrun.RelayedExit(launch(count))


def leading(out: Path | None, resume: str | None) -> Together:
    """For rank 0: join the others, or none. `out` and `resume` are the flags of the command.

    Raises `LostRankError` if the ranks do not find each other.
    """
    if torchrun.size() == 1:
        return Together()
    ranks, starters = _joined()
    place = Path(resume) if resume not in (None, "last") else out
    begun = launchers.begun_by(starters, place)
    return Together(ranks, begun, partial(launchers.note, launchers=starters))


def help_rank_0() -> None:
    """For any other rank: train with rank 0 until it is done."""
    ranks, _ = _joined()
    assist(ranks)


def _joined() -> tuple[Ranks, list[str]]:
    """All ranks, and the launchers that have started them."""
    take_share_of_cores()
    group.join()
    ranks = Ranks.joined()
    return ranks, ranks.from_all(launchers.launcher())
