"""Where trials run. Every engine runs the same commands and leaves the same folders."""

from typing import TYPE_CHECKING

from rpat_cli.registry import Registry

if TYPE_CHECKING:
    from rpat_cli.sweep.engines.base import EngineSection

ENGINES: "Registry[type[EngineSection]]" = Registry(
    "engine",
    {
        "local": "rpat_cli.sweep.engines.local:LocalSection",
        "slurm": "rpat_cli.sweep.engines.slurm:SlurmSection",
        "ray": "rpat_cli.sweep.engines.on_ray:RaySection",
    },
)
