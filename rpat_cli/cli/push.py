"""`rpat push`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rpat_cli.cli import eval_options as o
from rpat_cli.cli.model_options import RunOrModel, known_checkpoint, named_model, parameters
from rpat_cli.cli.run_options import AsJson
from rpat_cli.cli.splice import spliced
from rpat_cli.models.hub_name import HubName
from rpat_cli.signals import importing

NOTHING: Mapping[str, Any] = {}


@spliced("flags", parameters("model", "data", "normalize"), o.by_flag)
def push(
    *,
    run: RunOrModel,
    name: Annotated[
        str,
        typer.Argument(
            metavar="hf:USER/NAME", help="Where to: a repository, or hf:USER/NAME@BRANCH."
        ),
    ],
    flags: Mapping[str, Any] = NOTHING,
    checkpoint: o.Checkpoint = "best",
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository a private one, if it is new.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace files that are there; its history keeps them."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")
    ] = False,
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    as_json: AsJson = False,
) -> None:
    """Send a model to the Hugging Face hub, where everybody can name it: rpat eval hf:USER/NAME

    What is sent: the weights (model.safetensors), what rpat knows of them (rpat.json), and a card
    (README.md) with threat, figures, intervals, verdict and recipe. No code, and no folders of
    this machine.

    Examples:

      rpat push last hf:USER/NAME --dry-run

      rpat push runs/my-run hf:USER/NAME --private

      rpat push runs/my-run hf:USER/NAME@last --checkpoint last
    """
    target = HubName.parse(name)
    with importing():
        from rpat_cli.cli import model_session  # torch is imported here
    with named_model(run, flags, plugin or [], trust=trust) as (path, changes):
        model_session.push(
            path,
            changes,
            target,
            checkpoint=known_checkpoint(checkpoint),
            private=private,
            replace=replace,
            dry_run=dry_run,
            as_json=as_json,
        )
