"""`rpat predict`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rpat_cli.cli import eval_options as o
from rpat_cli.cli.model_options import RunOrModel, known_checkpoint, named_model, parameters
from rpat_cli.cli.run_options import AsJson
from rpat_cli.cli.splice import spliced
from rpat_cli.signals import importing

NOTHING: Mapping[str, Any] = {}


@spliced("flags", parameters("model", "data", "normalize", "device"), o.by_flag)
def predict(
    *,
    run: RunOrModel,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Image files; of a folder, every image below it."),
    ],
    flags: Mapping[str, Any] = NOTHING,
    checkpoint: o.Checkpoint = "best",
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=1, help="Classes to show of each image.")
    ] = 3,
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    as_json: AsJson = False,
) -> None:
    """Predict the classes of image files, with the confidence in percent.

    Images of any size are made into what the model was trained on: upright, resized and cropped,
    in color or gray.

    Examples:

      rpat predict last photo.png

      rpat predict runs/my-run photos/ --top 1

      rpat predict runs/my-run photos/ --json

      rpat predict torchvision:resnet18 photo.jpg --data imagefolder
    """
    with importing():
        from rpat_cli.cli import model_session  # torch is imported here
    with named_model(run, flags, plugin or [], trust=trust) as (path, changes):
        model_session.predict(
            path,
            changes,
            images,
            checkpoint=known_checkpoint(checkpoint),
            top=top,
            as_json=as_json,
            device=flags.get("--device"),
        )
