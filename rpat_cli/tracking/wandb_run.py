"""`--track wandb`: Weights & Biases."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rpat_cli.errors import MissingExtraError
from rpat_cli.tracking.base import Status, Tracked, Tracker, Values

EXIT_CODES: dict[Status, int] = {"finished": 0, "stopped": 0, "failed": 1}


class WandbRun(Tracker):
    """A run of the project `rpat`, whose group is the sweep, at the step `epoch`.

    Nothing leaves this machine unless that was asked for, by `wandb:online` or WANDB_MODE;
    `wandb sync` sends it later. WANDB_PROJECT, WANDB_RUN_GROUP and so on are obeyed.
    """

    options = MappingProxyType(
        {
            "online": "send everything to the server at once",
            "offline": "keep everything on this machine, whatever WANDB_MODE says",
        }
    )

    def start(self, run: Tracked) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("--track wandb", "wandb") from error
        mode: Any = self.option or os.environ.get("WANDB_MODE") or "offline"
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "rpat"),
            group=os.environ.get("WANDB_RUN_GROUP") or run.group or None,
            name=os.environ.get("WANDB_NAME") or run.name,
            id=run.key,
            resume="allow",
            dir=str(run.folder),
            config=run.settings(),
            mode=mode,
            # Of several runs in one process each is by itself.
            reinit="create_new",
        )

    def log(self, epoch: int, values: Values) -> None:
        self.run.log(dict(values), step=epoch)

    def results(self, epoch: int, values: Values, files: Sequence[Path]) -> None:
        self.run.summary.update({**values, "test/epoch": epoch})
        for file in files:
            self.run.save(str(file), base_path=str(file.parent), policy="now")

    def finish(self, status: Status) -> None:
        self.run.finish(exit_code=EXIT_CODES[status])
