"""What the trackers of a run are told: of a training, of its report, and of an evaluation."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import Interrupted
from rpat_cli.evaluation.results import Evaluation
from rpat_cli.recipe.schema import Recipe
from rpat_cli.records.metrics import read_metrics
from rpat_cli.records.run_folder import RunFolder, is_run
from rpat_cli.reports.saved_report import DAMAGE, accuracies, read_saved_report, threat_label
from rpat_cli.runs.listener import Listener
from rpat_cli.runs.new_run import recipe_name
from rpat_cli.tracking.base import Status, Tracked
from rpat_cli.tracking.following import Following

if TYPE_CHECKING:
    from rpat_cli.runs.evaluate import Measured
    from rpat_cli.runs.target import OpenedTarget


@contextmanager
def tracking(folder: RunFolder, recipe: Recipe, listener: Listener) -> Iterator[Following]:
    """The trackers of a session of training; they are told how the block ends."""
    following = Following(listener.trackers, folder, _about(folder, recipe), listener.say)
    status: Status = "failed"
    try:
        yield following
        status = "finished" if following.has_results else "stopped"
    except (Interrupted, KeyboardInterrupt):
        status = "stopped"
        raise
    finally:
        following.finish(status)


def report_results(following: Following, folder: RunFolder, epoch: int) -> None:
    """Pass on what the report says of the checkpoints, after `epoch` epochs."""
    try:
        found = accuracies(read_saved_report(folder))
    except DAMAGE:  # somebody else has changed it at this moment
        found = {}
    values = {
        f"test/{checkpoint}/{label}": value
        for checkpoint, by_label in found.items()
        for label, value in by_label.items()
    }
    following.results(epoch, values, [folder.report, folder.html])


def track_evaluation(opened: "OpenedTarget", measured: "Measured", listener: Listener) -> None:
    """Add the figures of an evaluation to what is tracked of its run, or of its model."""
    if not listener.trackers:
        return
    folder = opened.saved.folder
    name = opened.saved.file.stem
    values: dict[str, float] = {}
    for evaluation, _ in ((measured.evaluation, measured.file), *measured.others):
        own = evaluation.threat == measured.evaluation.threat
        values |= _figures(f"test/{name}/", evaluation, None if own else evaluation.threat)
    if measured.union is not None:
        values[f"test/{name}/union"] = measured.union.accuracy.value
    following = Following(listener.trackers, folder, _about(folder, opened.recipe), listener.say)
    records = read_metrics(folder.metrics)
    following.start(max((record["epoch"] for record in records), default=0))
    files = [measured.file, *(file for _, file in measured.others)]
    following.results(opened.saved.epoch, values, files)
    unfinished = is_run(folder.path) and not folder.report.exists()
    following.finish("stopped" if unfinished else "finished")


def _figures(prefix: str, evaluation: Evaluation, threat: Threat | None) -> Mapping[str, float]:
    """Accuracies by name: on clean images, after each attack, and in the worst case."""
    suffix = f"/{threat_label(threat.norm, threat.eps)}" if threat else ""
    values = {result.label: result.accuracy.value for result in evaluation.results}
    values |= {"clean": evaluation.clean.value, "worst case": evaluation.robust.value}
    return {f"{prefix}{label}{suffix}": value for label, value in values.items()}


def _about(folder: RunFolder, recipe: Recipe) -> Tracked:
    """The trial of a sweep, which is in sweeps/NAME/trials/HASH/run, is named after what it
    trains."""
    place = folder.path.resolve()
    is_trial = place.name == "run" and place.parent.parent.name == "trials"
    return Tracked(
        name=recipe_name(recipe) if is_trial else place.name,
        key="",
        folder=folder.tracking,
        group=place.parents[2].name if is_trial else "",
        recipe=recipe.model_dump(mode="json"),
    )
