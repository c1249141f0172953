"""Side-by-side timing: candidates take turns in one process, medians of CPU time; peak memory in fresh processes."""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
"""Set these to 1 before NumPy and polars are imported: a ratio of CPU times then compares work, not threads."""


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Return the median seconds of each candidate; one turn of all of them is not counted.

    Args:
        candidates: Name -> what to time. Its result is dropped before the next one starts.
        repeats: Counted turns.
        clock: CPU time of this process; wall time where a candidate works in other processes.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):
        for name, run in candidates.items():
            gc.collect()
            begin = clock()
            result = run()
            elapsed = clock() - begin
            del result
            if turn:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mib(script: str, *arguments: str) -> float:
    """Return what `report_peak` prints in a fresh process of a benchmark, MiB."""
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(
        [sys.executable, "-m", script, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return float(result.stdout.splitlines()[-1])


def report_peak(run: Callable[[], Any]) -> None:
    """Print by how many MiB a call raises the highest resident memory of this process."""
    _forget_peak()
    before = _resident_kib("VmRSS")
    result = run()
    print((_resident_kib("VmHWM") - before) / 1024)
    del result


def _forget_peak() -> None:
    """Start the high-water mark afresh, so that making the inputs does not hide the peak (Linux, proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def _resident_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
