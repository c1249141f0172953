"""`python -m benchmarks.latency`: one prediction at a time, batch 1, one thread, warm (EXEC-1). One JSON line.

The scalper's networks of chapter 12.4 and the mlp's three sizes take one window, and the scalper makes its record of
it; condor takes one row more by its recurrent step, after histories of 128 and of 1,024 rows. All take turns. p50 and
p95 of wall time, and of CPU time, which other work on the machine does not lengthen. Features are not part of it: see
`benchmarks.features` for the cost of a bar in a stream.
"""

from __future__ import annotations

import os

from benchmarks.measure import THREADS

os.environ.update(dict.fromkeys(THREADS, "1"))

import argparse
import gc
import json
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from trainables.condor.config import CondorConfig
from trainables.condor.model import CondorModel
from trainables.mlp.config import HIDDEN_WIDTHS, MlpConfig
from trainables.mlp.model import Mlp
from trainables.scalper.config import ScalperConfig
from trainables.scalper.model import ScalperModel
from trainables.scalper.predictions import predictions

AIM_MS = 10.0
"""p95 of the scalper and the mlp (EXEC-1)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--d-model", type=int, default=512, help="of condor")
    parser.add_argument("--layers", type=int, default=24, help="of condor")
    parser.add_argument("--histories", type=int, nargs="*", default=[128, 1024], help="of condor; none: leave it out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bound = {**scalpers(), **mlps()}
    condor, about_condor = {}, {}
    if options.histories:
        condor, about_condor = condor_steps(options.d_model, options.layers, sorted(options.histories))
    wall, cpu = in_turns({**bound, **condor}, turns=options.turns, warm_up=options.warm_up)
    if condor:
        medians = [float(np.median(cpu[name])) for name in condor]
        about_condor["condor_longest_over_shortest_history"] = round(medians[-1] / medians[0], 3)
    print(
        json.dumps(
            {
                "benchmark": "latency",
                "turns": options.turns,
                "load": round(os.getloadavg()[0], 1),
                "wall_ms": {name: percentiles(times) for name, times in wall.items()},
                "cpu_ms": {name: percentiles(times) for name, times in cpu.items()},
                "aim_p95_ms": AIM_MS,
                "slowest_p95_wall_ms": max(percentiles(wall[name])["p95"] for name in bound),
                "slowest_p95_cpu_ms": max(percentiles(cpu[name])["p95"] for name in bound),
                **about_condor,
            }
        )
    )


def scalpers() -> dict[str, Callable[[], object]]:
    """Return one prediction, record included, of each network of the scalper."""

    def of(arch: str) -> Callable[[], object]:
        config = ScalperConfig(arch=arch)
        model = ScalperModel(config, len(config.seen_features())).eval()
        window = torch.randn(1, config.lookback, len(config.seen_features()))
        return lambda: predictions(config, model(window))

    return {f"scalper_{arch}": of(arch) for arch in ("ffn", "lstm", "gru", "transformer")}


def mlps() -> dict[str, Callable[[], object]]:
    """Return one probability of each size of the mlp."""

    def of(hidden: str) -> Callable[[], object]:
        config = MlpConfig(hidden=hidden)
        model, window = Mlp(config, config.n_inputs).eval(), torch.randn(1, 1, config.n_inputs)
        return lambda: model(window).sigmoid().item()

    return {f"mlp_{hidden}": of(hidden) for hidden in HIDDEN_WIDTHS}


def condor_steps(
    d_model: int, n_layers: int, histories: list[int]
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Return the next step of a condor after each number of rows, and what to say of its size."""
    config = CondorConfig(d_model=d_model, n_layers=n_layers)
    model, row = CondorModel(config, config.seen_features()).eval(), torch.randn(1, config.n_features)
    state, steps = model.first_state(1), {}
    with torch.inference_mode():
        for number in range(1, max(histories) + 1):
            _, state = model.step(row, state)
            if number in histories:
                steps[f"condor_step_after_{number}"] = lambda kept=state: model.step(row, kept)
    return steps, {"condor_parameters": config.n_parameters()}


def in_turns(
    candidates: Mapping[str, Callable[[], object]], *, turns: int, warm_up: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return wall and CPU seconds of every counted turn of each candidate."""
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    gc.collect()
    gc.disable()
    with torch.inference_mode():
        for turn in range(turns + warm_up):
            for name, predict in candidates.items():
                predict()  # caches belong to the candidate before: a live model finds its own
                began, began_cpu = time.perf_counter(), time.process_time()
                predict()
                if turn >= warm_up:
                    cpu[name].append(time.process_time() - began_cpu)
                    wall[name].append(time.perf_counter() - began)
    return wall, cpu


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return p50 and p95 in milliseconds."""
    return {f"p{q}": round(1000 * float(np.percentile(seconds, q)), 3) for q in (50, 95)}


if __name__ == "__main__":
    main()
