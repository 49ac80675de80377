"""`--track mlflow`: MLflow."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rpat_cli.errors import MissingExtraError
from rpat_cli.tracking.base import Status, Tracked, Tracker, Values

STATUSES: dict[Status, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}

KEY = "rpat.key"
"""The tag by which a session finds the run that an earlier one has begun."""

AT_ONCE = 100
"""Parameters in one request, at most."""

LENGTH = 500
"""Letters in the value of a parameter, at most, on servers of all versions."""

SETTINGS = {
    # Without it, MLflow 3 opens no store of files that needs no database.
    "MLFLOW_ALLOW_FILE_STORE": "true",
    # Its own are minutes, for each of which a server out of reach would stall the training.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Of MLflow's environment, where the user has set nothing."""


@contextmanager
def _own_settings() -> Iterator[None]:
    added = [name for name in SETTINGS if name not in os.environ]
    os.environ.update({name: SETTINGS[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class MlflowRun(Tracker):
    """A run of the experiment `rpat`, at the step `epoch`, tagged with its sweep.

    It is on the server of MLFLOW_TRACKING_URI, or else in files in the run's folder;
    MLFLOW_EXPERIMENT_NAME is obeyed.
    """

    @_own_settings()
    def start(self, run: Tracked) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise MissingExtraError("--track mlflow", "mlflow") from error
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self.client: Any = MlflowClient(tracking_uri=server or run.folder.resolve().as_uri())
        self.id = self._run_of(run)

    def _run_of(self, run: Tracked) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "rpat")
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        for found in self.client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'"):
            self.client.update_run(found.info.run_id, status="RUNNING")
            return str(found.info.run_id)
        tags = {KEY: run.key} | ({"rpat.sweep": run.group} if run.group else {})
        made = self.client.create_run(experiment, run_name=run.name, tags=tags)
        self._describe(made.info.run_id, run)
        return str(made.info.run_id)

    def _describe(self, run_id: str, run: Tracked) -> None:
        from mlflow.entities import Param

        parameters = [
            Param(_allowed(key), str(value)[:LENGTH]) for key, value in run.settings().items()
        ]
        for first in range(0, len(parameters), AT_ONCE):
            self.client.log_batch(run_id, params=parameters[first : first + AT_ONCE])

    @_own_settings()
    def log(self, epoch: int, values: Values) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_allowed(name), value, now, epoch) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    @_own_settings()
    def results(self, epoch: int, values: Values, files: Sequence[Path]) -> None:
        self.log(epoch, values)
        for file in files:
            self.client.log_artifact(self.id, str(file))

    @_own_settings()
    def finish(self, status: Status) -> None:
        self.client.set_terminated(self.id, STATUSES[status])


def _allowed(name: str) -> str:
    """A name with what MLflow does not take in one replaced: `transfer:runs/a@pgd` has a colon."""
    return re.sub(r"[^\w\-. /]", "_", name)
