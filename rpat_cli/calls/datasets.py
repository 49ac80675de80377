"""Data sets by name."""

from typing import Any

from rpat_cli.calls.options import PathLike
from rpat_cli.data import DATASETS
from rpat_cli.data.base import Dataset
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.runs.build import build_data


def names() -> list[str]:
    """The data sets that there are."""
    return list(DATASETS)


def load(
    name: str = "fashion-mini",
    *,
    root: PathLike | None = None,
    download: bool = False,
    val_size: int | float | None = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    **keys: Any,
) -> Dataset:
    """Read a data set as a training does: `train`, `val` (held out of the training images by
    `seed`; as many as a training holds out, unless `val_size` says how many) and `test`.

    Each has `batches(order, batch_size, device)`, and `tensors()`: x (N, C, H, W) float32 in [0, 1]
    and y (N,) int64, all at once. `keys` are further keys of the recipe's section `data`. Raises
    `ConfigError`, and `DataError` for files that are missing or damaged.
    """
    given = {"root": root and str(root), "val_size": val_size, "image_size": image_size}
    section = {key: value for key, value in given.items() if value is not None}
    values = {"data": {"name": name, "download": download, **section, **keys}, "seed": seed}
    recipe = resolve([Layer("datasets.load()", values, by_user=True)])
    return build_data(recipe.data, recipe.seed)
