"""What `--surrogate MODULE=STAND-IN` asks for."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from rpat_cli.attacks.surrogate import STAND_INS, StandIn, Surrogate
from rpat_cli.errors import ConfigError, Problem, did_you_mean
from rpat_cli.loading.model_file import ModelFile
from rpat_cli.recipe.trust import trust, untrusted

FORM = "MODULE=identity, MODULE=relu or MODULE=FILE.py:FUNCTION"


def read_surrogates(
    given: Sequence[str] | Mapping[str, Any], source: str = "--surrogate"
) -> list[Surrogate]:
    """From `["layer1.sparse=identity"]`, or from `{"layer1.sparse": "identity"}`, where a function
    may stand as well.

    A function is called with what the module is given. Raises `ConfigError` for other texts, and
    for files that are missing, fail, or that nobody has answered for.
    """
    surrogates, problems = [], []
    pairs = list(given.items()) if isinstance(given, Mapping) else [_split(text) for text in given]
    for module, stand_in in pairs:
        try:
            surrogates.append(_read(module, stand_in, source))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return surrogates


def surrogate_files(given: Sequence[str] | Mapping[str, Any]) -> list[Path]:
    """The Python files that they name."""
    texts = (
        list(given.values()) if isinstance(given, Mapping) else [_split(text)[1] for text in given]
    )
    files = [ModelFile.parse(text) for text in texts if isinstance(text, str)]
    return [file.path for file in files if file is not None]


def recorded(surrogates: Sequence[Surrogate]) -> dict[str, str]:
    """For the record: by module, its stand-in in words."""
    return {each.module: each.written for each in surrogates}


def fingerprint(surrogates: Sequence[Surrogate]) -> dict[str, str]:
    """The same with what each file said when it was read."""
    texts = {each.module: each.written for each in surrogates}
    for module, written in texts.items():
        if file := ModelFile.parse(written):
            texts[module] = f"{written} {sha256(file.text.encode()).hexdigest()}"
    return texts


def _split(text: str) -> tuple[str, str]:
    module, _, stand_in = text.partition("=")
    return module.strip(), stand_in.strip()


def _read(module: str, stand_in: Any, source: str) -> Surrogate:
    if callable(stand_in):
        return Surrogate(module, getattr(stand_in, "__qualname__", repr(stand_in)), stand_in)
    if not module or not stand_in or not isinstance(stand_in, str):
        message = f"'{module}={stand_in}' is not of the form {FORM}."
        raise ConfigError(Problem("", message, source))
    if stand_in in STAND_INS:
        return Surrogate(module, stand_in)
    file = ModelFile.parse(stand_in)
    if file is None:
        message = f"{stand_in!r} is no stand-in. Allowed: {FORM}."
        raise ConfigError(Problem("", message, source, did_you_mean(stand_in, list(STAND_INS))))
    if not trust().allows(file.path):
        raise ConfigError(untrusted(file.path.resolve(), source))
    function: StandIn = file.function_in_it()
    return Surrogate(module, str(file), function)
