"""What the runner asks of an engine: submit, poll, cancel."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, Field

from rpat_cli.errors import unknown
from rpat_cli.recipe.components import Strict, no_switch
from rpat_cli.registry import Registry


@dataclass(frozen=True)
class Job:
    """A command to run; its output is appended to `log`. `name` is unique among the jobs.

    `prepare` makes the folder ready and returns the command. It is called once no other process
    works in that folder.
    """

    name: str
    prepare: Callable[[], tuple[str, ...]]
    log: Path


@dataclass(frozen=True)
class Ended:
    """A job that has ended. `exit_code` is negative if a signal killed it, as in `subprocess`."""

    name: str
    exit_code: int


class Engine(Protocol):
    """Runs jobs in parallel. An engine knows nothing of trials, recipes or results."""

    @property
    def slots(self) -> int:
        """How many jobs may be queued or running at once."""
        ...

    def submit(self, job: Job) -> bool:
        """Start a job, or queue it; false while a process of an earlier call still runs it.

        Raises `OSError` if it cannot be started, and whatever `prepare` raises.
        """
        ...

    def poll(self) -> list[Ended]:
        """The jobs that have ended since the last call. Never blocks."""
        ...

    def cancel(self, name: str, *, force: bool = False) -> None:
        """Ask a job to save and stop (SIGTERM), or with `force` kill it at once. `poll` reports it
        when it has ended."""
        ...


class EngineSection(Strict):
    """The section `engine` of a sweep file: which engine, and its own settings."""

    name: str = Field(description="which engine")
    jobs: int | None = Field(None, ge=1, description="trials at once; --jobs overrides it")
    ranks: int | None = Field(
        None, ge=1, description="processes that share each trial (default: one on each of its GPUs)"
    )

    @property
    def code(self) -> dict[str, Any]:
        """The settings, by key, with which a sweep file runs code of its own: a stranger's must not
        (`rpat_cli.recipe.trust`)."""
        return {}

    def slots(self, jobs: int | None) -> int:
        """How many trials run at once, as far as that is known without starting the engine."""
        raise NotImplementedError

    def start(self, jobs: int | None) -> Engine:
        """The engine, for `jobs` trials at once if given.

        Raises `MissingExtraError`, or `EngineError` if the cluster cannot be reached.
        """
        raise NotImplementedError


def _check_switches(section: Mapping[str, Any], kind: type[EngineSection]) -> None:
    for key, field in kind.model_fields.items():
        try:
            no_switch(section.get(key), field.annotation)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


def engine_of(registry: Registry[type[EngineSection]]) -> Any:
    """The type of the key `engine`: a name in `registry`, or a mapping with the `name` and that
    engine's settings."""

    def named(value: Any) -> Any:
        if isinstance(value, EngineSection):
            return value
        section = {"name": value} if isinstance(value, str) else value
        if not isinstance(section, Mapping) or "name" not in section:
            raise ValueError(f"must be {', '.join(registry)}, or a mapping with such a `name`")
        name = section["name"]
        if not isinstance(name, str) or name not in registry:
            raise ValueError(unknown(registry.kind, str(name), list(registry)))
        _check_switches(section, registry[name])
        return section

    sections: Any = reduce(or_, registry.values())
    return Annotated[sections, Field(discriminator="name"), BeforeValidator(named)]
