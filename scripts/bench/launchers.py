"""A sweep with dltrain's launcher and with Hydra's: how long it takes, and what is left where jobs are in trouble.

Needs hydra-joblib-launcher and hydra-submitit-launcher beside dltrain: python scripts/bench/launchers.py [--troubled]
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parents[2]
CONTESTANTS = ("dltrain", "basic", "joblib", "submitit_local")
HEALTHY = ("trainer=smoke", "model=mlp", "data=synthetic", "data.num_train=700", "data.val_size=64", "device.threads=1")
LIMIT_SECONDS = 60


def job(config: DictConfig) -> None:
    """One job as a Hydra application runs it: train the configuration, in the folder that Hydra gives it."""
    from dltrain.config.compose import Composition
    from dltrain.verbs._start import train

    facts = HydraConfig.get().runtime
    if os.environ.get("TROUBLED"):
        config = trouble(config)
    OmegaConf.set_readonly(config, True)
    code = train(Composition(config, dict(facts.choices)), parent=Path(facts.output_dir), name="run")
    if code:
        raise RuntimeError(f"exit code {code}")


def trouble(config: DictConfig) -> DictConfig:
    """What some jobs do instead of training, by their seed; the fifth trains, at a rate that no training bears."""
    if config.seed == 1:
        raise ValueError("on purpose")
    if config.seed == 2:
        sys.exit(3)
    if config.seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == 4:
        time.sleep(10**6)
    changed = OmegaConf.create(OmegaConf.to_container(config))
    if config.seed == 5:
        changed.optim.lr = 1e38
    return changed


def command(contestant: str, folder: Path, words: list[str]) -> list[str]:
    """What one types for a sweep."""
    own = [*words, f"outputs_dir={folder}"]
    if contestant == "dltrain":
        program = [__file__, "--dltrain"] if os.environ.get("TROUBLED") else ["-m", "dltrain"]
        return [sys.executable, *program, "-m", *own, f"sweep.timeout={LIMIT_SECONDS // 2}"]
    places = [f"hydra/launcher={contestant}", f"hydra.sweep.dir={folder}/sweeps", "hydra.sweep.subdir=${hydra.job.num}"]
    return [sys.executable, __file__, "--hydra", "-m", *own, *places, *PARALLEL.get(contestant, [])]


PARALLEL = {"joblib": ["hydra.launcher.n_jobs=2"], "submitit_local": ["hydra.launcher.timeout_min=1"]}


def sweep(contestant: str, words: list[str]) -> dict[str, Any]:
    """Seconds, exit code (None: still at it after the limit), jobs that completed, and failures that were named."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen(
            command(contestant, Path(folder), words),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            process.returncode = None
        seconds = time.perf_counter() - start
        summaries = [json.loads(path.read_text()) for path in Path(folder).rglob("summary.json")]
    named = [seed for seed, word in NAMES.items() if word in output]
    completed = sum(each["status"] == "completed" for each in summaries)
    return {"seconds": seconds, "code": process.returncode, "completed": completed, "named": len(named)}


NAMES = {1: "on purpose", 2: "exit code 3", 3: "SIGKILL", 4: "timeout", 5: "not finite"}


def as_dltrain(arguments: list[str]) -> int:
    """dltrain's own sweep, its jobs in the same trouble."""
    from dltrain import cli
    from dltrain.verbs import _sweep

    _sweep.run_job = troubled_job
    return cli.main(arguments)


def troubled_job(request: Any, slot: Any) -> int:
    """As dltrain runs a job, after what it may do instead."""
    from dltrain.verbs._job import run_job

    config = trouble(request.composition.config)
    return run_job(replace(request, composition=replace(request.composition, config=config)), slot)


def main() -> None:
    """Run the contestants in turns, and print a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--troubled", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    if flags.troubled:
        os.environ["TROUBLED"] = "1"
    jobs, repeats = (12, 1) if flags.troubled else (8, flags.repeats)
    results: dict[str, list[dict[str, Any]]] = {contestant: [] for contestant in CONTESTANTS}
    for _ in range(repeats):
        for contestant in CONTESTANTS:
            results[contestant].append(sweep(contestant, [*HEALTHY, f"seed=range({jobs})"]))
    print("| launcher | completed | failures named | exit code | seconds | spread |\n|---|---|---|---|---|---|")
    for contestant, found in results.items():
        seconds = sorted(each["seconds"] for each in found)
        last = found[-1]
        cells = (
            "dltrain" if contestant == "dltrain" else f"Hydra's {contestant}",
            f"{last['completed']} of {jobs}",
            last["named"] if flags.troubled else "",
            "did not end" if last["code"] is None else last["code"],
            f"{statistics.median(seconds):.1f}",
            f"{seconds[0]:.1f}-{seconds[-1]:.1f}",
        )
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--dltrain"]:
        sys.exit(as_dltrain(sys.argv[2:]))
    if sys.argv[1:2] == ["--hydra"]:
        sys.argv.pop(1)
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(job)()
    else:
        main()
