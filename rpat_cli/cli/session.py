"""The bodies of the commands: call the run, show the result. Imported when a command runs, since it
needs torch."""

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from rpat_cli.cli import console, torchrun
from rpat_cli.cli.progress import listening
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.parallel import ranks
from rpat_cli.evaluation.parallel.processes import Jobs
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.recipe.layers import Layer, layers_of, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.summary import summary
from rpat_cli.records.run_folder import newest_run
from rpat_cli.reports.analyses import FEW_CHANGED, changed_images, comparison_table
from rpat_cli.reports.report import build_report
from rpat_cli.reports.terminal import (
    evaluation_remarks,
    evaluation_summary,
    evaluation_table,
    remarks_text,
    report_table,
)
from rpat_cli.runs import estimate as cost
from rpat_cli.runs.compare import compare_files, evaluation_file
from rpat_cli.runs.diagnose import CORRUPTIONS, analyse, check_wanted, prepare_corruptions
from rpat_cli.runs.evaluate import EvalOptions, eval_run
from rpat_cli.runs.train import resume_run, train_run


def train(
    *,
    recipe: str | None,
    configs: Sequence[Path],
    assignments: Sequence[str],
    flags: Mapping[str, tuple[tuple[str, ...], Any]],
    out: Path | None,
    resume: str | None,
    stop_after: int | None,
    jobs: Jobs,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """`rpat train`: a new run, with `resume` the rest of an old one, with `dry_run` only what it
    would cost."""
    if resume is not None and out is not None:
        raise ConfigError(
            "--out and --resume exclude each other: a resumed run stays in its folder."
        )
    if resume is not None and dry_run:
        raise ConfigError(
            "--dry-run and --resume exclude each other: give the run's recipe.yaml with --config."
        )
    layers = layers_of(recipe=recipe, configs=configs, assignments=assignments, flags=flags)
    if dry_run:
        show_cost(resolve(layers), out, as_json=as_json)
        return
    with listening(quiet=quiet or as_json) as listener:
        if resume is not None:
            path = newest_run().path if resume == "last" else Path(resume)
            folder = resume_run(
                path, changes=layers, stop_after=stop_after, jobs=jobs, listener=listener
            )
        else:
            resolved = resolve(layers)
            listener.say(
                "\n".join(f"{label:>9}  {text}" for label, text in summary(resolved).items())
            )
            folder = train_run(
                resolved, out=out, stop_after=stop_after, jobs=jobs, listener=listener
            )
    if not folder.report.exists():  # stopped on purpose before the end
        return
    report = build_report(folder)
    if as_json:
        print(json.dumps(report.to_dict()))
        return
    console.out.print(report_table(report))
    console.out.print(remarks_text(report.remarks))
    console.out.print(f"report: {folder.html}", markup=False, soft_wrap=True)


def show_cost(recipe: Recipe, out: Path | None, *, as_json: bool) -> None:
    """`rpat train --dry-run`: the recipe, and what it costs here."""
    if not as_json:
        _show(
            summary(recipe).items()
        )  # at once: the steps of a large network take minutes on a CPU
    with console.err.status("taking a few steps to see what they cost"):
        estimate = cost.dry_run(recipe, out)
    if as_json:
        figures = {**asdict(estimate), "run_dir": str(estimate.run_dir)}
        print(json.dumps({"recipe": recipe.model_dump(mode="json"), "estimate": figures}))
    else:
        _show(cost.lines(estimate))


def _show(lines: Iterable[tuple[str, str]]) -> None:
    for label, text in lines:
        console.out.print(f"{label:>9}  {text}", markup=False, soft_wrap=True)


def evaluate(
    *,
    target: Path | None,
    specs: Sequence[AttackSpec],
    checkpoint: str,
    changes: Sequence[Layer],
    batch_size: int | None,
    jobs: Jobs,
    limit: int | None,
    analyses: Sequence[str],
    corruptions: Path | None,
    corruptions_baseline: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """`rpat eval`: one checkpoint against a suite of attacks, and a closer look at it by the
    `analyses` asked for."""
    if torchrun.is_helper():
        ranks.serve()
        return
    if corruptions_baseline and not corruptions:
        raise ConfigError(
            "--corruptions-baseline goes with --corruptions DIR, the images to measure on."
        )
    check_wanted(analyses)
    shared = torchrun.size() > 1
    with (
        ranks.leading() if shared else nullcontext() as others,
        listening(quiet=quiet or as_json) as listener,
    ):
        if target is None:
            target = newest_run().path
            listener.say(f"evaluating the newest run, {target}")
        prepared = {}
        if corruptions:  # before hours of attacks, since its files may be wrong
            prepared[CORRUPTIONS] = prepare_corruptions(
                corruptions,
                target,
                baseline=corruptions_baseline,
                limit=limit,
                checkpoint=checkpoint,
                changes=changes,
                listener=listener,
            )
        again = (
            shlex.join(["rpat", *sys.argv[1:]]) + " (alone, or under torchrun as before)" * shared
        )
        options = EvalOptions(batch_size, jobs, limit, again=again, ranks=others)
        evaluation, file = eval_run(
            target,
            specs,
            checkpoint=checkpoint,
            changes=changes,
            options=options,
            listener=listener,
        )
        found = analyse(
            analyses,
            target,
            file,
            checkpoint=checkpoint,
            changes=changes,
            limit=limit,
            prepared=prepared,
            listener=listener,
        )
    if as_json:
        print(file.read_text(encoding="utf-8"))
    else:
        names = json.loads(file.read_text(encoding="utf-8"))["data"]["class_names"]
        console.out.print(evaluation_table(evaluation))
        console.out.print(evaluation_summary(evaluation, names))
        console.out.print(remarks_text(evaluation_remarks(evaluation)))
        for analysis in found:
            console.out.print(analysis.table())
        console.out.print(f"result: {file}", markup=False, soft_wrap=True)
    if any(analysis.failed for analysis in found):
        raise typer.Exit(3)


def compare(a: Path, b: Path, *, changed: bool, as_json: bool) -> None:
    """`rpat compare`: two evaluations of the same images."""
    a, b = evaluation_file(a), evaluation_file(b)
    comparisons = compare_files(a, b)
    if as_json:
        print(
            json.dumps(
                {"a": str(a), "b": str(b), "comparisons": [each.to_dict() for each in comparisons]}
            )
        )
        return
    for name, file in (("A", a), ("B", b)):
        console.out.print(f"{name}: {file}", markup=False, soft_wrap=True)
    console.out.print(comparison_table(comparisons))
    for line in changed_images(comparisons, None if changed else FEW_CHANGED):
        console.out.print(line, markup=False, soft_wrap=True)
