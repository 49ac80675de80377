"""The bodies of the commands: call the run, show the result. Imported when a command runs, since it
needs torch."""

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import typer

from rpat_cli.attacks.surrogate import Surrogate
from rpat_cli.cli import console, together, torchrun
from rpat_cli.cli.printing import Printing
from rpat_cli.cli.progress import listening
from rpat_cli.data.choice import Limit
from rpat_cli.errors import ConfigError, Mistakes
from rpat_cli.evaluation.parallel import ranks
from rpat_cli.evaluation.parallel.processes import Jobs
from rpat_cli.evaluation.suite import AttackSpec
from rpat_cli.loading.named import run_or_path
from rpat_cli.loading.stand_ins import read_surrogates
from rpat_cli.loading.start_name import with_networks_named, with_start_named
from rpat_cli.recipe.layers import Layer, layers_of, read_recipe, resolve
from rpat_cli.recipe.plugins import load_plugins
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.summary import summary
from rpat_cli.recipe.trust import trusting
from rpat_cli.records import eval_file
from rpat_cli.records.run_folder import newest_run, open_run
from rpat_cli.reports import headline
from rpat_cli.reports.cases import NO_VERDICT, has_verdict
from rpat_cli.reports.for_ci import check_places, write_for_ci
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.report import Report
from rpat_cli.reports.terminal import remarks_text, report_table
from rpat_cli.runs import estimate as cost
from rpat_cli.runs.diagnose import Wanted, check_wanted
from rpat_cli.runs.evaluate import EvalOptions, Measured, measure_run
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.shown import shown
from rpat_cli.runs.target import check_changes
from rpat_cli.runs.train import train_run
from rpat_cli.tracking import Choice, chosen
from rpat_cli.user_code import speaking_on_stderr


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
    track: Sequence[str],
    printing: Printing,
    ranks: int | None,
    gpus: int | None,
    mistakes: Mistakes,
) -> None:
    """`rpat train`: a new run; with `resume` the rest of an old one; with `dry_run` its cost.

    With `ranks` or `gpus` this process starts so many others with the same arguments, and waits.
    `mistakes`: what is known to be wrong already, to be raised with what is wrong besides.
    """
    with mistakes.gathered():
        _check_resume(resume, out, dry_run=dry_run)
    with mistakes.gathered():
        together.check_flags(ranks, gpus, dry_run=dry_run)
    if torchrun.is_helper():
        mistakes.check()
        together.help_rank_0()
        return
    given = {"configs": configs, "assignments": assignments, "flags": flags}
    layers, resolved = _read(mistakes, resume, recipe=recipe, **given)
    trackers = _trackers(mistakes, track, flags.get("--plugin", ((), ()))[1], resume)
    mistakes.check()  # whatever is wrong is said before other processes are started
    if dry_run and resolved is not None:
        show_cost(resolved, out, as_json=printing.as_json)
        return
    together.launch_if_asked(ranks, gpus, resolved)
    with speaking_on_stderr(), listening(quiet=printing.silent, trackers=trackers) as listener:
        shared = together.leading(out, resume)
        session: dict[str, Any] = {"stop_after": stop_after, "jobs": jobs, "listener": listener}
        session |= {"ranks": shared.ranks, "begun": shared.note}
        if shared.begun is not None:
            listener.say(f"started again by the same launcher: going on with {shared.begun.path}")
            with trusting(everything=True):  # its code was trusted when it began
                folder = resume_run(shared.begun.path, **session)
        elif resolved is None:
            folder = resume_run(run_or_path(str(resume)), changes=layers, **session)
        else:
            listener.say("\n".join(_labeled(summary(resolved).items())))
            folder = train_run(resolved, out=out, **session)
        shared.over(folder)
    if folder.report.exists():  # --stop-after ends a training before there is one
        show_report(build_report(folder), folder.html, printing)


def _read(
    mistakes: Mistakes, resume: str | None, **given: Any
) -> tuple[list[Layer], Recipe | None]:
    """The layers of the command line, and the recipe of a new run."""
    layers: list[Layer] = []
    with mistakes.gathered(), speaking_on_stderr():
        layers = with_start_named(layers_of(**given))
        return layers, None if resume is not None else with_networks_named(resolve(layers))
    return layers, None


def _trackers(
    mistakes: Mistakes,
    track: Sequence[str],
    plugins: Sequence[str] = (),
    resume: str | None = None,
) -> tuple[Choice, ...]:
    """What `--track` names; the plugins, also those of a run to resume, are loaded first, which may
    add some."""
    with mistakes.gathered(), speaking_on_stderr():
        load_plugins((file, "--plugin") for file in plugins if track)
        if track and resume is not None:
            resolve(read_recipe(open_run(run_or_path(resume)).recipe))
        return chosen(track)
    return ()


def _check_resume(resume: str | None, out: Path | None, *, dry_run: bool) -> None:
    """Raises `ConfigError` for flags that a resumed run cannot have."""
    problems = []
    if resume is not None and out is not None:
        problems.append(
            "--out cannot be combined with --resume: a resumed run stays in its folder."
        )
    if resume is not None and dry_run:
        problems.append(
            "--dry-run cannot be combined with --resume. Give the run's recipe.yaml with --config."
        )
    if problems:
        raise ConfigError(*problems)


def show_report(report: Report, page: Path, printing: Printing) -> None:
    """What a finished training has reached."""
    if printing.as_json:
        full = report.to_dict() if printing.full_json else {}
        print(json.dumps({**headline.of_report(report), **full}))
        return
    console.out.print(report_table(report))
    console.out.print(remarks_text(report.remarks))
    console.out.print(f"report: {page}", markup=False, soft_wrap=True)


def show_cost(recipe: Recipe, out: Path | None, *, as_json: bool) -> None:
    """`rpat train --dry-run`: the recipe, and what it costs here."""
    if not as_json:
        _show(
            summary(recipe).items()
        )  # at once: the steps of a large network take minutes on a CPU
    with speaking_on_stderr(), console.err.status("taking a few steps to see what they cost"):
        estimate = cost.dry_run(recipe, out)
    if as_json:
        numbers = {**asdict(estimate), "run_dir": str(estimate.run_dir)}
        print(json.dumps({"recipe": recipe.model_dump(mode="json"), "estimate": numbers}))
    else:
        _show(cost.lines(estimate))


def _show(lines: Iterable[tuple[str, str]]) -> None:
    for line in _labeled(lines):
        console.out.print(line, markup=False, soft_wrap=True)


def _labeled(lines: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{label:>9}  {text}" for label, text in lines]


def evaluate(
    *,
    target: Path | None,
    specs: Sequence[AttackSpec],
    checkpoint: str,
    changes: Sequence[Layer],
    diagnostics: Wanted,
    batch_size: int | None,
    jobs: Jobs,
    limit: Limit | None,
    out: Path | None = None,
    fast: bool = False,
    save_adv: Path | None = None,
    surrogates: Sequence[str] = (),
    track: Sequence[str] = (),
    for_ci: Mapping[str, Path] = MappingProxyType({}),
    printing: Printing,
    mistakes: Mistakes,
) -> None:
    """`rpat eval`: one checkpoint against a suite of attacks, and the diagnostics asked for.

    `mistakes`: what is known to be wrong already, to be raised with what is wrong besides.
    """
    if torchrun.is_helper():
        mistakes.check()
        ranks.serve()
        return
    trackers = _trackers(mistakes, track)
    with mistakes.gathered():
        for_ci = check_places(for_ci)
    stand_ins = _checked(mistakes, target, changes, diagnostics, surrogates)
    with (
        speaking_on_stderr(),
        ranks.leading() if torchrun.size() > 1 else nullcontext() as others,
        listening(quiet=printing.silent, trackers=trackers) as listener,
    ):
        target = _at(target, listener)
        how = (batch_size, jobs, limit, _again(), others, out, fast, stand_ins, save_adv)
        measured = measure_run(
            target,
            specs,
            diagnostics=diagnostics,
            checkpoint=checkpoint,
            changes=changes,
            options=EvalOptions(*how),
            listener=listener,
        )
    _show_evaluation(measured, printing)
    _write_for_ci(for_ci, target, measured, quiet=printing.quiet)
    if any(result.failed for result in measured.diagnostics.values()):
        raise typer.Exit(3)


def _at(target: Path | None, listener: Listener) -> Path:
    """What is evaluated: the newest run, which is said, or what was named."""
    if target is not None:
        return run_or_path(target)
    newest = newest_run().path
    listener.say(f"evaluating the newest run, {newest}")
    return newest


def _again() -> str:
    """How to go on with an evaluation."""
    either = " (alone or with torchrun)" if torchrun.size() > 1 else ""
    return shlex.join(["rpat", *sys.argv[1:]]) + either


def _checked(
    mistakes: Mistakes,
    target: Path | None,
    changes: Sequence[Layer],
    diagnostics: Wanted,
    surrogates: Sequence[str],
) -> list[Surrogate]:
    """What stands in for modules. Raises `ConfigError` with all that is known to be wrong before
    the target is opened."""
    stand_ins: list[Surrogate] = []
    with mistakes.gathered(), speaking_on_stderr():
        stand_ins = read_surrogates(surrogates)
    with mistakes.gathered():
        check_wanted(diagnostics)
    if mistakes:  # nothing will be opened: what that would have found is looked for as well
        with mistakes.gathered(), speaking_on_stderr():
            check_changes(target, changes)
    mistakes.check()
    return stand_ins


def _as_dict(measured: Measured, *, full: bool) -> dict[str, Any]:
    """The headline figures; in full also the evaluation's file, or with several threats all files
    and the union."""
    files = [measured.file, *(file for _, file in measured.others)]
    short = headline.of_evaluations(files, measured.union)
    if not full:
        return short
    records = [dict(eval_file.read(file).record) for file in files]
    if measured.union is None:
        return {**short, **records[0]}
    return {**short, "evaluations": records, "union": measured.union.to_dict()}


def _show_evaluation(measured: Measured, printing: Printing) -> None:
    if printing.as_json:
        print(json.dumps(_as_dict(measured, full=printing.full_json)))
        return
    for part in shown(measured):
        console.out.print(part)
    for path in (measured.file, *(path for _, path in measured.others)):
        console.out.print(f"result: {path}", markup=False, soft_wrap=True)


def _write_for_ci(
    files: Mapping[str, Path], target: Path, measured: Measured, *, quiet: bool
) -> None:
    """`--sarif` and `--junit`, and what is missing for them to be worth much."""
    if not files:
        return
    evaluated = [(measured.evaluation, measured.file), *measured.others]
    write_for_ci(files, target, evaluated, measured.diagnostics)
    if not has_verdict(measured.diagnostics):
        console.say(f"note: {NO_VERDICT}")
    if not quiet:
        for flag, file in files.items():
            console.say(f"{flag}: {file}")
