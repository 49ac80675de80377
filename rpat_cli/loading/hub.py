"""Files of models on the Hugging Face hub: found in its cache on this machine, or downloaded there.

They are a stranger's, and are read as data: weights as safetensors (or, if the user names such a
file, a state dict), and a description as JSON. Nothing else is fetched.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from rpat_cli.errors import CheckpointError, ConfigError, MissingExtraError, RpatError
from rpat_cli.models.hub_name import HUB, HubName
from rpat_cli.models.libraries import has_weights
from rpat_cli.recipe.trust import trust, unasked_download
from rpat_cli.text import file_size
from rpat_cli.version import __version__

WEIGHTS = "model.safetensors"

DESCRIPTION = "rpat.json"
"""What `rpat push` says of a model: what else a checkpoint of rpat has, besides the weights."""

MOST_BYTES: Mapping[str, int] = {DESCRIPTION: 1_000_000}
"""More than any description has."""

MOST_OF_WEIGHTS = 20_000_000_000

CLIENT: Mapping[str, str] = {"library_name": "rpat", "library_version": __version__}


@dataclass(frozen=True)
class HubFiles:
    """The files of a model on this machine. `description` is None where rpat has not pushed it."""

    name: HubName
    weights: Path
    description: Path | None

    @property
    def commit(self) -> str:
        """Which version of the repository they are of."""
        parts, folder = self.weights.parts, f"models--{self.name.repo.replace('/', '--')}"
        # FOLDER/snapshots/COMMIT; the cache itself may be below a folder of any name.
        return parts[parts.index(folder) + 2] if folder in parts[:-2] else ""


def client(feature: str) -> ModuleType:
    """The package `huggingface_hub`. Raises `MissingExtraError`."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import safetensors  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError(feature, "hub") from None
    return huggingface_hub


def fetch(name: HubName, option: str = "", *, key: str = "") -> HubFiles:
    """The files of a model: the newest ones of its revision if the user has named it, or else, or
    where the hub is out of reach, those that are on this machine already.

    Raises `ConfigError` for a download that nobody asked for, with the `option` that does and its
    `key`, `CheckpointError` for what is not there or cannot be had, and `MissingExtraError`.
    """
    asked = trust().allows_download(str(name))
    reader = _Reader(name, client(f"the model {str(name)!r}"), online=asked)
    description = None if name.file else reader.find(DESCRIPTION)
    weights = reader.find(name.file or WEIGHTS)
    if weights is not None:
        return HubFiles(name, weights, description)
    if not asked:
        raise ConfigError(unasked_download(str(name), option, key=key))
    raise reader.missing()


def is_here(name: str) -> bool:
    """Whether the weights of `torchvision:NAME`, `timm:NAME` or `hf:USER/NAME` are on this machine,
    so that using them downloads nothing. Raises as `has_weights` and `fetch` do."""
    if not name.startswith(HUB):
        return has_weights(name)
    parsed = HubName.parse(name)
    reader = _Reader(parsed, client(f"the model {name!r}"), online=False)
    return reader.find(parsed.file or WEIGHTS) is not None


class _Reader:
    """Finds files of one repository, all of the same commit."""

    def __init__(self, name: HubName, hub: ModuleType, *, online: bool) -> None:
        self.name = name
        self.hub = hub
        self.online = online
        self.revision: str | None = name.revision or None
        self.unreachable: Exception | None = None

    def find(self, file: str) -> Path | None:
        """None if the repository has no such file, or, offline, if it is not on this machine."""
        errors = self.hub.errors
        try:
            if self.online:
                self._announce(file)
            return self._get(file)
        except RpatError:
            raise
        except errors.LocalEntryNotFoundError as error:
            self.unreachable = self.unreachable or error
            return None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:  # of the network, of access, of the disk
            raise CheckpointError(said(self.hub, error, self.name)) from error

    def _announce(self, file: str) -> None:
        """Say how large a download is, and refuse one that is too large; where the hub is out of
        reach, go on offline."""
        hub = self.hub
        url = hub.hf_hub_url(self.name.repo, file, revision=self.revision)
        try:
            found = hub.get_hf_file_metadata(url)
        except hub.errors.HfHubHTTPError as error:
            if getattr(error.response, "status_code", 500) < 500:
                raise
            self.online, self.unreachable = False, error
            return
        except Exception as error:  # each version of the client has its own
            self.online, self.unreachable = False, error
            return
        commit, size = found.commit_hash, found.size or 0
        if isinstance(hub.try_to_load_from_cache(self.name.repo, file, revision=commit), str):
            return
        most = MOST_BYTES.get(file, MOST_OF_WEIGHTS)
        if size > most:
            raise CheckpointError(
                f"{self.name}: {file} has {file_size(size)}, and at most {file_size(most)} are "
                "downloaded. Download it yourself, and name the file."
            )
        print(f"downloading {file} of {self.name}: {file_size(size)}", file=sys.stderr)

    def _get(self, file: str) -> Path:
        path = Path(
            self.hub.hf_hub_download(
                self.name.repo,
                file,
                revision=self.revision,
                local_files_only=not self.online,
                **CLIENT,
            )
        )
        self.revision = HubFiles(self.name, path, None).commit or self.revision
        return path

    def missing(self) -> CheckpointError:
        """Why there are no weights, for a model that may be downloaded."""
        if self.unreachable is not None:
            return CheckpointError(said(self.hub, self.unreachable, self.name))
        file, others = self.name.file or WEIGHTS, ""
        try:
            api = self.hub.HfApi(self.hub.constants.ENDPOINT)
            info = api.model_info(self.name.repo, revision=self.revision)
            listed = [each.rfilename for each in info.siblings or []]
            kinds = (".safetensors", ".bin", ".pt", ".pth")
            has = [each for each in listed if each.endswith(kinds)]
            others = f" It has {', '.join(has[:6])}." if has else ""
        except Exception:  # the list is only a help
            others = ""
        plain = replace(self.name, file="")
        return CheckpointError(
            f"{plain}: the repository has no {file}.{others} Name a file of weights: {plain}:FILE"
        )


def said(hub: ModuleType, error: Exception, name: HubName, doing: str = "read") -> str:
    """An error of the client as one sentence: what is wrong, and what to do."""
    errors, plain = hub.errors, replace(name, file="")
    login = "Log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"{plain}: its owner wants you to accept terms on its page first. Then: {login}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{plain}: there is no such repository, or it is private. Check the name. If it is "
            f"private: {login} to a token that may read it."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{plain}: the repository has no branch, tag or commit {name.revision!r}."
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{plain}: your token may not {doing} it. {login} to one that may."
    reason = " ".join(str(error).split())[:200]
    done, instead = _FAILED[doing]
    return f"{plain}: the repository could not be {done} ({reason}). Try again online{instead}"


_FAILED: Mapping[str, tuple[str, str]] = {
    "read": ("read", ", or download the file and name it."),
    "see": ("looked up", ": what it holds is asked first, for a dry run too."),
    "write": ("written", "; nothing half sent is visible there."),
}
