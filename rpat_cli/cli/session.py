"""The bodies of the commands: call the run, show the result. Imported when a command runs, since it needs torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rpat_cli.cli import console
from rpat_cli.cli.progress import listening
from rpat_cli.errors import ConfigError
from rpat_cli.eval_run import eval_run
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.recipe_io import Layer, flag_layers, parse_assignments, read_yaml, resolve, summary
from rpat_cli.reports.report import build_report
from rpat_cli.reports.tables import evaluation_remarks, evaluation_table, remarks_text, report_table
from rpat_cli.run_folder import newest_run
from rpat_cli.train_run import resume_run, train_run


def train(
    *,
    configs: Sequence[Path],
    assignments: Sequence[str],
    flags: Mapping[str, tuple[tuple[str, ...], Any]],
    out: Path | None,
    resume: str | None,
    stop_after: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """`rpat train`: a new run, or with `resume` the rest of an old one."""
    if resume is not None and out is not None:
        raise ConfigError("--out and --resume exclude each other: a resumed run stays in its folder.")
    with listening(quiet=quiet or as_json) as listener:
        layers: list[Layer] = [*map(read_yaml, configs), *parse_assignments(assignments), *flag_layers(flags)]
        if resume is not None:
            path = newest_run().path if resume == "last" else Path(resume)
            folder = resume_run(path, changes=layers, stop_after=stop_after, listener=listener)
        else:
            recipe = resolve(layers)
            listener.say("\n".join(f"{label:>9}  {text}" for label, text in summary(recipe).items()))
            folder = train_run(recipe, out=out, stop_after=stop_after, listener=listener)
    if not folder.report.exists():  # stopped on purpose before the end
        return
    report = build_report(folder)
    if as_json:
        print(json.dumps(report.to_dict()))
        return
    console.out.print(report_table(report))
    console.out.print(remarks_text(report.remarks))
    console.out.print(f"report: {folder.html}", markup=False, soft_wrap=True)


def evaluate(
    *,
    target: Path | None,
    specs: Sequence[AttackSpec],
    checkpoint: str,
    changes: Sequence[Layer],
    batch_size: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """`rpat eval`: one checkpoint against a suite of attacks."""
    with listening(quiet=quiet or as_json) as listener:
        if target is None:
            target = newest_run().path
            listener.say(f"evaluating the newest run, {target}")
        evaluation, file = eval_run(
            target, specs, checkpoint=checkpoint, changes=changes, batch_size=batch_size, listener=listener
        )
    if as_json:
        print(file.read_text(encoding="utf-8"))
        return
    console.out.print(evaluation_table(evaluation))
    console.out.print(remarks_text(evaluation_remarks(evaluation)))
    console.out.print(f"result: {file}", markup=False, soft_wrap=True)
