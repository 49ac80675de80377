"""Names of models on the Hugging Face hub: `hf:USER/NAME[@REVISION][:FILE]`."""

import re
from dataclasses import dataclass

from rpat_cli.errors import ConfigError, shortened

HUB = "hf:"

_PART = r"(?![.-])(?:(?!\.\.|--)[\w.-])+"
"""A user or a name, by the hub's rules, which keep it within its folder."""

_PATH = rf"{_PART}(?:/{_PART})*"

_NAME = re.compile(
    rf"hf:(?P<repo>{_PART}/{_PART})(@(?P<revision>{_PATH}))?(:(?P<file>{_PATH}))?", re.ASCII
)


@dataclass(frozen=True)
class HubName:
    """A repository (`USER/NAME`), a branch, tag or commit of it ("" for its main branch), and one
    file of it ("" for the usual ones)."""

    repo: str
    revision: str = ""
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Raises `ConfigError` for what can be none, such as a name that would lead out of the
        folder that downloads go to."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{shortened(text)!r} is not of the form hf:OWNER/REPO, hf:OWNER/REPO@REVISION or "
                "hf:OWNER/REPO:FILE, with letters, digits, '_' and single '.' and '-'."
            )
        return cls(match["repo"], match["revision"] or "", match["file"] or "")

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB}{self.repo}{revision}" + (f":{self.file}" if self.file else "")
