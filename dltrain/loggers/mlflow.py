"""MLflow."""

import os
import time
from pathlib import Path
from typing import Any

STATUSES = {"completed": "FINISHED", "interrupted": "KILLED"}
LONGEST, MOST = 500, 100  # of a parameter's value, and of parameters in a request: what every version of a server takes


class mlflow:  # noqa: N801 (as it is chosen)
    """A run of MLflow with the settings as its parameters; a resumed run goes on with it.

    `tracking_uri` null is MLFLOW_TRACKING_URI, or else the folder `mlflow` of the outputs directory, which MLflow reads
    where MLFLOW_ALLOW_FILE_STORE=true. A run's id is kept in its folder. Raises ValueError.
    """

    def __init__(self, *, experiment: str = "dltrain", tracking_uri: str | None = None) -> None:
        try:
            import mlflow as package
            from mlflow import entities
        except ImportError as error:
            raise ValueError("the package mlflow is not installed: pip install mlflow-skinny") from error
        self.entities: Any = entities
        self.client_class: Any = package.MlflowClient
        self.experiment, self.uri = experiment, tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.error: Any = package.MlflowException

    def start(self, folder: Path, *, name: str, config: dict[str, Any]) -> str:
        """Begin a run of this name, or go on with the one whose id the folder keeps."""
        if self.uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            self.uri = str(Path(config["outputs_dir"]).resolve() / "mlflow")
        self.client = self.client_class(tracking_uri=self.uri)
        kept = folder / "mlflow-run"
        if kept.is_file():
            self.run_id = kept.read_text()
            self.client.update_run(self.run_id, "RUNNING")
        else:
            self.run_id = self.client.create_run(self._experiment_id(), run_name=name).info.run_id
            kept.write_text(self.run_id)
            self._add_parameters(config)
        return f"{self.experiment}, run {self.run_id}, in {self.uri}"

    def _experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        try:
            return str(found.experiment_id if found else self.client.create_experiment(self.experiment))
        except self.error:  # another run has made it just now
            return str(self.client.get_experiment_by_name(self.experiment).experiment_id)

    def _add_parameters(self, config: dict[str, Any]) -> None:
        found = [self.entities.Param(key, str(value)[:LONGEST]) for key, value in _flat(config)]
        for first in range(0, len(found), MOST):
            self.client.log_batch(self.run_id, params=found[first : first + MOST])

    def add(self, row: dict[str, Any]) -> None:
        """Log a row in one request; null is left out."""
        now, step = int(1000 * time.time()), row["step"]
        numbers = {f"{row['split']}/{key}": value for key, value in row.items() if key not in ("split", "step")}
        known = [self.entities.Metric(key, value, now, step) for key, value in numbers.items() if value is not None]
        self.client.log_batch(self.run_id, metrics=known)

    def close(self, status: str) -> None:
        """Finish the run."""
        self.client.set_terminated(self.run_id, STATUSES.get(status, "FAILED"))


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The settings by their dotted keys."""
    return [
        pair
        for key, value in config.items()
        for pair in (_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)])
    ]
