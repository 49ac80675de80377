"""A recipe for others: without the folders of this machine, which nobody else has, and which may
name its user."""

import os
import re
from typing import Any

from pydantic import BaseModel

from rpat_cli.recipe.data_section import DataSection
from rpat_cli.recipe.schema import Recipe

_IN_VALUE = re.compile(r"(?:^|(?<=[:=@,`\[{]))(?:~[^/]*)?/(?!/)(?:[^/:]+/)*(?=[^/])")
"""The folders of an absolute path that is a value, or is in one: `transfer:/home/me/run@pgd-20`."""

_IN_TEXT = re.compile(r"(?:^|(?<=[\s:=@,'\"(`\[{]))(?:~[^/\s]*)?/(?!/)(?:[^/:\s]+/)*(?=[^/\s])")

_STOPS = r"\s:=@,'\"()`\[\]{}<>"

_HOME = re.compile(rf"(?:^|(?<=[{_STOPS}]))/(?:home|Users)/[^/{_STOPS}]+/*(?=$|[{_STOPS}])")
"""The folder of a user, as a whole path: its last part is the user's name."""


def without_folders(text: str) -> str:
    """The text, where of every absolute path only the name is left."""
    return _IN_TEXT.sub("", _without_home(text))


def _without_home(text: str) -> str:
    own = os.path.expanduser("~").rstrip("/")  # noqa: PTH111 (pathlib raises without a home)
    if own:
        text = re.sub(rf"(?:^|(?<=[{_STOPS}])){re.escape(own)}/*(?=$|[{_STOPS}])", "~", text)
    return _HOME.sub("~", text)


def portable(recipe: Recipe) -> Recipe:
    """The same recipe, where of every absolute path only the name is left, and data sets are in
    their usual folder. It is not checked again: its files need not be here."""
    root = DataSection.model_fields["root"].default
    data = recipe.data.model_copy(update={"root": root})
    whole: Recipe = _stripped(recipe.model_copy(update={"data": data}))
    return whole


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        return _IN_VALUE.sub("", _without_home(value))
    if isinstance(value, BaseModel):
        return value.model_copy(update={key: _stripped(part) for key, part in value})
    if isinstance(value, dict):
        return {key: _stripped(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_stripped, value))
    return value
