"""Imported by the process that the jobs of a sweep are forked from: what it holds, they need not read again.

It reads the data with numpy and runs nothing with torch: jobs forked after that would hang.
"""

import contextlib
import json
import os

DATA = "DLTRAIN_SWEEP_DATA"  # the data nodes of the jobs' configurations, as JSON; set for that process alone


def hold(nodes: str) -> None:
    """Hold the data of some configurations' data nodes."""
    from omegaconf import OmegaConf

    from dltrain import data
    from dltrain.components import make
    from dltrain.config.errors import ConfigError
    from dltrain.data import idx_file
    from dltrain.data.dataset import DataError
    from dltrain.data.idx import IdxDataset

    idx_file.hold()
    for node in json.loads(nodes):
        with contextlib.suppress(ConfigError, DataError):  # the jobs will say so
            dataset = make(data, OmegaConf.create({"data": node}).data)
            if isinstance(dataset, IdxDataset):
                dataset.load()


if DATA in os.environ:
    hold(os.environ[DATA])
