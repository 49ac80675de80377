"""The model card: what the model is, how robust it was measured to be, and how to load it."""

import json
from collections.abc import Mapping
from typing import Any

from rpat_cli.export.formats import FORMATS
from rpat_cli.loading.saved_model import SavedModel
from rpat_cli.recipe.layers import to_yaml
from rpat_cli.recipe.portable import portable, without_folders
from rpat_cli.recipe.summary import summary
from rpat_cli.reports.markup import markdown_block, markdown_text
from rpat_cli.reports.report import Report, ReportRow
from rpat_cli.reports.words import show_threat
from rpat_cli.text import percent, percent_range

MARK = "library_name: rpat"
"""A line that every card has: a file with it may be written anew."""


def model_card(
    saved: SavedModel,
    report: Report | None,
    checkpoint: str,
    files: Mapping[str, str],
    hub: str = "",
) -> str:
    """In Markdown, with the header that the Hugging Face hub reads. `files`: of each format; `hub`:
    the name under which rpat finds the model there. Folders of this machine are left out."""
    architecture = saved.architecture
    name = report.name if report else saved.file.stem
    shape = " x ".join(map(str, architecture.shape))
    lines = [
        "---",
        MARK,
        "pipeline_tag: image-classification",
        "tags: [adversarial-robustness, adversarial-training, pytorch]",
        "---",
        "",
        f"# {markdown_text(name)}",
        "",
        f"{markdown_text(architecture.name)}, checkpoint {checkpoint}"
        + (f" (epoch {saved.epoch})" if saved.epoch else "")
        + f", from images {shape}, float32 in [0, 1], to {architecture.classes} logits. The "
        "normalization is part of the model: give it pixels as they are.",
        "",
    ]
    if saved.class_names:
        lines += [f"Classes, in order: {markdown_text(', '.join(saved.class_names))}.", ""]
    lines += [*_measured(report, checkpoint), *_usage(saved, files, hub)]
    if report is not None:
        recipe = portable(report.recipe)
        short = summary(recipe).items()
        lines += ["## Training", "", *(f"- {key}: {markdown_text(text)}" for key, text in short)]
        lines += ["", "The recipe; `rpat train --config FILE` repeats it:", ""]
        lines += [markdown_block(to_yaml(recipe).strip()), ""]
    return "\n".join(lines)


def rows_of(report: Report, checkpoint: str) -> list[ReportRow]:
    """What was measured of a checkpoint, by threat."""
    return [row for row in report.rows if row.checkpoint.name == checkpoint]


def _measured(report: Report | None, checkpoint: str) -> list[str]:
    rows = [] if report is None else rows_of(report, checkpoint)
    if report is None or not rows:
        return ["## Robustness", "", "Not measured.", ""]
    lines = [
        "## Robustness",
        "",
        f"On the test set of {markdown_text(report.recipe.data.name)}, in percent:",
        "",
        "| threat | attack | accuracy | 95 % interval | images |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        for label, result in row.results.items():
            accuracy = result.accuracy
            threat = show_threat(row.threat) if result.threat else ""
            cells = [threat, markdown_text(label), percent(accuracy.value)]
            cells += [percent_range(accuracy.interval), str(accuracy.n)]
            lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    verdict = report.diagnostics.get("verdict")
    if verdict is None:
        lines += ["Whether gradients are masked was not checked (`rpat eval --check`).", ""]
    else:
        level = str(verdict.content.get("level", ""))
        lines += [f"Verdict of `rpat eval --check` on {verdict.checkpoint}: **{level}**.", ""]
    if report.remarks:
        remarks = map(without_folders, report.remarks)
        lines += [*(f"- {markdown_text(remark)}" for remark in remarks), ""]
    return lines


def _usage(saved: SavedModel, files: Mapping[str, str], hub: str) -> list[str]:
    lines = ["## Use", ""]
    if hub:
        lines += [
            "With rpat (`pip install 'rpat[hub]'`):",
            "",
            f"```sh\nrpat eval {hub} --attack autoattack\n```",
            "",
            f'```python\nimport rpat\n\nmodel = rpat.load_model("{hub}").model\n```',
            "",
        ]
    for name, file in files.items():
        if name in FORMATS:
            code = f"```python\n{FORMATS[name].usage}\n```"
            lines += [f"`{file}`: {FORMATS[name].help}.", "", code, ""]
    weights = [files[name] for name in ("safetensors", "state-dict") if name in files]
    if weights:
        architecture: dict[str, Any] = saved.architecture.to_dict()
        lines += [
            "The network of the weights, with rpat:",
            "",
            "```python",
            "from rpat_cli.loading.architecture import Architecture",
            "",
            f"model = Architecture.from_dict({json.dumps(architecture)}).build()",
            "model.load_state_dict(state)",
            "model.eval()",
            "```",
            "",
        ]
    return lines
