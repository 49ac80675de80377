"""Options of a command that are made from a table, in place of one parameter of its function."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any

Command = Callable[..., None]


def spliced(
    name: str, options: Sequence[Parameter], gather: Callable[[Mapping[str, Any]], Any]
) -> Callable[[Command], Command]:
    """A decorator: the command's parameter `name` becomes `options`; the command gets what `gather`
    makes of their values, by the name of each."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**values: Any) -> None:
            given = {option.name: values.pop(option.name) for option in options}
            command(**values, **{name: gather(given)})

        # typer reads the signature of a command, and its annotations.
        parameters: list[Parameter] = []
        for parameter in signature(command).parameters.values():
            parameters += options if parameter.name == name else [parameter]
        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate
