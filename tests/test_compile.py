"""torch.compile makes the same losses; it takes most of a minute the first time, so behind --long."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_a_compiled_run_has_the_losses_of_an_eager_one(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    losses = {}
    for mode in ("off", "default"):
        run = ("model=lenet", "data=synthetic", "trainer=smoke", "trainer.ema=0.9", f"device.compile={mode}")
        command = [sys.executable, "-m", "dltrain", *run, "device=cpu", f"name={mode}", f"outputs_dir={tmp_path}"]
        subprocess.run(command, check=True, env=environment)
        folder = tmp_path / "runs" / mode
        losses[mode] = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert json.loads((folder / "summary.json").read_text())["compile"] == mode
    assert losses["default"] == pytest.approx(losses["off"], rel=1e-3)
    assert list((tmp_path / "dltrain/inductor").iterdir())
