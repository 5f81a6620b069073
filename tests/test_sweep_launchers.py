"""The comparison with Hydra's own launchers that docs/sweeps.md shows."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/bench/launchers.py"
PLUGINS = ("hydra_joblib_launcher", "hydra_submitit_launcher")


@pytest.mark.long
def test_ours_completes_the_healthy_jobs_and_names_the_others():
    for plugin in PLUGINS:
        pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"needs {plugin.replace('_', '-')}")
    done = subprocess.run([sys.executable, SCRIPT, "--troubled"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    found = {launcher: (completed, named, code) for launcher, completed, named, code, *_ in lines}
    assert found["dltrain"] == ("7 of 12", "5", "3")
    assert len(found) == 4
