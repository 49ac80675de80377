"""`rpat.push`."""

from collections.abc import Sequence

from rpat_cli.calls.model import saved_model
from rpat_cli.calls.options import PathLike
from rpat_cli.export.push import Pushed, push_model
from rpat_cli.models.hub_name import HubName
from rpat_cli.runs.caller import called

CALL = "push"


def push(
    target: PathLike,
    name: str,
    checkpoint: str = "best",
    *,
    private: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    data: str | None = None,
    model: str | None = None,
    normalize: str | None = None,
    plugin: "PathLike | Sequence[PathLike] | None" = None,
    trust: bool = False,
) -> Pushed:
    """Send the model of a run or checkpoint to the Hugging Face hub, as `rpat push` does: `name` is
    `hf:USER/NAME` or `hf:USER/NAME@BRANCH`.

    Weights, what rpat knows of them, and a card are sent in one commit, by the token of `hf auth
    login` or of HF_TOKEN. `private` makes a new repository a private one; `replace` replaces files
    that are there; `dry_run` sends nothing. `data`, `model`, `normalize`, `plugin` and `trust` are
    as in `rpat.load_model`. The result, printed, says what was sent and where to. Raises
    `ConfigError` for files that are there already, for a model that needs code, and if nobody is
    logged in, and other `RpatError`s.
    """
    given = {"data": data, "model": model, "normalize": normalize}
    hub_name = HubName.parse(name)
    saved = saved_model(CALL, target, checkpoint, given, None, plugin, trust=trust)
    with called(CALL):
        return push_model(saved, hub_name, private=private, replace=replace, dry_run=dry_run)
