"""Where a step's time goes: python scripts/bench/profile_step.py [overrides]; operations by their own time.

On CUDA the step is shown as it is replayed, by kernels, and then as it runs eagerly, by operations and their shapes.
"""

import sys

from torch.profiler import ProfilerActivity, profile

from dltrain.bench.machine import stopwatch, wait
from dltrain.build import Run, build
from dltrain.config.compose import compose
from dltrain.engine.step import Batch

WARM_UP, STEPS = 5, 3


def main(overrides: list[str]) -> None:
    """Profile some steps on the first batch, after some others."""
    run = build(compose(overrides).config)
    show(run)
    if run.engine.execution == "CUDA graph":
        show(build(compose([*overrides, "device.graphs=false"]).config))


def show(run: Run) -> None:
    """The operations of a run's steps."""
    device = run.engine.device
    batch = next(iter(run.batches["train"].epoch(0)))
    for step in range(WARM_UP):
        run.engine.step(batch, step)
    wait(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, record_shapes=True) as profiled:
        seconds = stopwatch(lambda: steps(run, batch), device)
    print(f"{run.engine.execution}: {seconds / STEPS:.6f} s a step, profiled, of {len(batch[0])} images")
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    for by_shape in (False, True):
        averages = profiled.key_averages(group_by_input_shape=by_shape)
        print(averages.table(sort_by=key, row_limit=25, max_name_column_width=75, max_shapes_column_width=60))


def steps(run: Run, batch: Batch) -> None:
    for step in range(WARM_UP, WARM_UP + STEPS):
        run.engine.step(batch, step)


if __name__ == "__main__":
    main(sys.argv[1:])
