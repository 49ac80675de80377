"""`rpat.train`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from rpat_cli.calls.imports import unnoticed
from rpat_cli.calls.options import (
    PathLike,
    TrainOptions,
    check_switches,
    layers_from,
    several,
    with_options,
)
from rpat_cli.recipe.layers import Layer

if TYPE_CHECKING:
    from rpat_cli.calls.progress import PerEpoch, Show
    from rpat_cli.calls.run import Run

CALL = "train"


@with_options(TrainOptions)
def train(
    config: "PathLike | Sequence[PathLike] | None" = None,
    *,
    recipe: str | None = None,
    out: PathLike | None = None,
    resume: "PathLike | Run | None" = None,
    stop_after: int | None = None,
    jobs: int | Literal["auto"] = 1,
    set: Mapping[str, Any] | None = None,
    plugin: "PathLike | Sequence[PathLike] | None" = None,
    trust: bool = False,
    track: str | Sequence[str] = (),
    progress: "Show" = None,
    callbacks: "Sequence[PerEpoch]" = (),
    **options: Unpack[TrainOptions],
) -> "Run":
    """Train a robust classifier, as `rpat train` does, and return its run.

    The keywords are the options of `rpat train`, which explains them: `method="trades", beta=3,
    norm="L2", eps=0.5, lr=0.1`; any other key of the recipe is set by `set={"wa.decay": 0.999}`.
    `recipe` names a shipped recipe, `config` are recipe files laid over it; both lie under what is
    given here.

    `data` is the name of a data set, or images: `(x, y)`, a `Dataset`, a `DataLoader`, or
    `{"train": ..., "test": ...}` of these; without test images, a fifth is held out. `resume` goes
    on with a run, "last" with the newest; `stop_after` ends after so many epochs. `jobs` processes
    share the evaluation at the end; they import the script that calls this, in which the call must
    be below `if __name__ == "__main__":`.

    `progress=True` shows bars, a function gets lines of text; by default a notebook shows a bar,
    and all else nothing. `callbacks` are functions that are called after every epoch with its
    `EpochRecord`, or objects of the class `rpat.Callback`. `track`, "tensorboard" for example,
    sends the figures to trackers as `--track` does.

    Code that files name, plugins for example, runs only if `plugin` names it as well, or with
    `trust=True`. Raises `ConfigError`, listing every mistake, and other `RpatError`s; what fails in
    code of the caller is a `UserCodeError` raised from its own error. Random generators, threads,
    loggers, signal handlers and defaults come out as they went in.
    """
    with unnoticed():
        from rpat_cli.calls import session
        from rpat_cli.calls.progress import showing
        from rpat_cli.calls.run import Run
        from rpat_cli.runs.caller import images_in

    given: dict[str, Any] = dict(options)
    images, given = images_in(given, training=True)
    layers = _layers(given, set, several(plugin))
    with showing(progress, callbacks) as listener:
        folder = session.training(
            layers,
            images,
            listener,
            recipe=recipe,
            configs=[Path(each) for each in several(config)],
            out=None if out is None else Path(out),
            resume=resume,
            trust=trust,
            track=track,
            stop_after=stop_after,
            jobs=jobs,
        )
    return Run(folder.path)


def _layers(
    options: Mapping[str, Any], assigned: Mapping[str, Any] | None, plugins: Sequence[PathLike]
) -> list[Layer]:
    from rpat_cli.cli.train_options import OPTIONS

    check_switches(OPTIONS, options)
    keys = {option.parameter: option.path for option in OPTIONS}
    layers = layers_from(options, keys, assigned, CALL)
    if plugins:
        named = {"plugins": [str(file) for file in plugins]}
        layers.append(Layer(f"{CALL}(plugin=...)", named, by_user=True))
    return layers
