"""Networks whose names are made of numbers and endings: `wrn-34-20`, `dm-wrn-70-16-silu`.

Like the table of models, this imports no torch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rpat_cli.registry import Family

if TYPE_CHECKING:
    from rpat_cli.models.base import ModelBuilder

NUMBER = "[1-9][0-9]{0,2}"
ACTIVATION = "(?:-(?P<activation>relu|silu|pssilu))?"
SIZE = f"(?P<depth>{NUMBER})-(?P<width>{NUMBER})"


def wide_settings(fields: Mapping[str, str | None]) -> dict[str, Any]:
    """The keyword arguments of a wide network's builder, of the parts of its name. Raises
    `ValueError` for a depth that no such network has."""
    depth, width = int(fields["depth"] or 0), int(fields["width"] or 0)
    if depth % 6 != 4 or depth < 10:
        at_least = max(10, depth)
        near = 4 + 6 * ((at_least - 4) // 6)
        raise ValueError(
            f"a wide network has a depth of 6 n + 4 layers, such as {near} or {near + 6}; given "
            f"{depth}"
        )
    return {"depth": depth, "width": width, **settings(fields)}


def settings(fields: Mapping[str, str | None]) -> dict[str, Any]:
    """The other parts: what is in the name as such is True, and what is not keeps its default."""
    found: dict[str, Any] = {}
    for key, value in fields.items():
        if key == "activation" and value is not None:
            found[key] = value
        elif key not in ("activation", "depth", "width") and value:
            found[key] = True
    return found


FAMILIES: "tuple[Family[ModelBuilder], ...]" = (
    Family(
        form="wrn-DEPTH-WIDTH[-sub][-hypersphere][-silu]",
        pattern=f"wrn-{SIZE}(?P<sub>-sub)?(?P<hypersphere>-hypersphere)?{ACTIVATION}",
        entry="rpat_cli.models.wide_resnet:wide_resnet",
        settings=wide_settings,
        examples=("wrn-34-20", "wrn-70-16", "wrn-40-2", "wrn-28-10-silu", "wrn-34-10-sub"),
    ),
    Family(
        form="dm-wrn-DEPTH-WIDTH[-silu]",
        pattern=f"(?P<meansparse>meansparse-)?dm-wrn-{SIZE}{ACTIVATION}",
        entry="rpat_cli.models.deepmind:dm_wide_resnet",
        settings=wide_settings,
        examples=("dm-wrn-28-10-silu", "dm-wrn-70-16-silu", "meansparse-dm-wrn-70-16-silu"),
    ),
    Family(
        form="dm-preact-18[-silu]",
        pattern=f"dm-preact-18{ACTIVATION}",
        entry="rpat_cli.models.deepmind:dm_preact_resnet18",
        settings=settings,
        examples=("dm-preact-18-silu",),
    ),
)
