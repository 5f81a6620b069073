"""Where a step's time goes: python scripts/bench/profile_step.py [overrides]; operations by their own time."""

import sys

from torch.profiler import ProfilerActivity, profile

from dltrain.bench.machine import wait
from dltrain.build import build
from dltrain.config.compose import compose

WARM_UP, STEPS = 5, 3


def main(overrides: list[str]) -> None:
    """Profile some steps on the first batch, after some others."""
    run = build(compose(overrides).config)
    device = run.engine.device
    batch = next(iter(run.batches["train"].epoch(0)))
    for step in range(WARM_UP):
        run.engine.step(batch, step)
    wait(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, record_shapes=True) as profiled:
        for step in range(WARM_UP, WARM_UP + STEPS):
            run.engine.step(batch, step)
        wait(device)
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    for by_shape in (False, True):
        averages = profiled.key_averages(group_by_input_shape=by_shape)
        print(averages.table(sort_by=key, row_limit=25, max_name_column_width=45, max_shapes_column_width=60))


if __name__ == "__main__":
    main(sys.argv[1:])
