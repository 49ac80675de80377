"""`rpat export`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rpat_cli.cli import eval_options as o
from rpat_cli.cli.model_options import RunOrModel, known_checkpoint, named_model, parameters
from rpat_cli.cli.options import in_list
from rpat_cli.cli.run_options import AsJson
from rpat_cli.cli.splice import spliced
from rpat_cli.signals import importing

NOTHING: Mapping[str, Any] = {}

FORMAT_NAMES = ("safetensors", "state-dict", "torch-export", "torchscript", "onnx", "robustbench")


@spliced("flags", parameters("model", "data", "normalize", "data_root"), o.by_flag)
def export(
    *,
    run: RunOrModel,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAMES",
            help=f"Formats, separated by commas: {', '.join(FORMAT_NAMES)}; or all.",
            autocompletion=lambda incomplete: in_list(FORMAT_NAMES, incomplete),
        ),
    ] = "state-dict,torch-export",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Where to write (default: exports/RUN-CHECKPOINT).",
            show_default=False,
        ),
    ] = None,
    flags: Mapping[str, Any] = NOTHING,
    checkpoint: o.Checkpoint = "best",
    check: Annotated[
        str,
        typer.Option(
            "--check",
            metavar="N|all",
            help="Test images on which every file is compared with the model.",
        ),
    ] = "1000",
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs, with a card, and check that it predicts the same.

    Every format takes images in [0, 1], float32 (B, C, H, W), and gives logits: the
    normalization is part of it.

    Examples:

      rpat export last

      rpat export runs/my-run --format onnx,state-dict --out handed-on

      rpat export runs/my-run --checkpoint last --format all --check all

      rpat export runs/my-run --format robustbench --json
    """
    with importing():
        from rpat_cli.cli import model_session  # torch is imported here
    with named_model(run, flags, plugin or [], trust=trust) as (path, changes):
        model_session.export(
            path,
            changes,
            FORMAT_NAMES if formats == "all" else [name.strip() for name in formats.split(",")],
            checkpoint=known_checkpoint(checkpoint),
            out=out,
            check=check,
            as_json=as_json,
        )
