"""Time and memory of the report on a large search: `python benchmarks/analysis.py [--trials 1000] [--folds 20] ...`.

Writes a run folder of made-up evidence into a temporary directory, then runs `python -m analysis.report` on it in a
process of its own and prints wall and processor time and peak memory of that process. Aim: 1,000 trials x 20 folds x
5,000 timestamps in under 60 s on two cores and under 4 GiB. All measures of flatness are there, as they are asked what
they told of the next fold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import polars as pl

from analysis.reports.flat import MEASURES
from analysis.run_folder import write_plan, write_tables

ROOT = Path(__file__).parents[1]
MINUTE_NS = 60_000_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--folds", type=int, default=20)
    parser.add_argument("--timestamps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="condor-bench-") as folder:
        run_dir = Path(folder) / "run"
        run_dir.mkdir()
        started = time.perf_counter()
        write_run(run_dir, asked.trials, asked.folds, asked.timestamps, asked.seed)
        print(f"written: {time.perf_counter() - started:.1f} s", file=sys.stderr)
        seconds, processor_s, peak_gib = report(run_dir)
        size_mb = (run_dir / "report.html").stat().st_size / 1e6
    found = {"trials": asked.trials, "folds": asked.folds, "timestamps": asked.timestamps}
    found |= {"seconds": round(seconds, 1), "processor_s": round(processor_s, 1), "peak_gib": round(peak_gib, 2)}
    print(json.dumps(found | {"page_mb": round(size_mb, 1), "cores": os.cpu_count(), "load": os.getloadavg()[0]}))
    return 0


def report(run_dir: Path) -> tuple[float, float, float]:
    """Return wall seconds, processor seconds and peak resident memory, GiB, of the report command."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "analysis.report", str(run_dir)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the report ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def write_run(run_dir: Path, n_trials: int, n_folds: int, n_rows: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    write_plan(run_dir, plan(n_folds))
    target = 0.001 * generator.standard_normal((n_folds, n_rows)).astype(np.float32)
    trials, folds = [], []
    for number in range(n_trials):
        trial_id, rate = f"t{number:04d}", float(10 ** generator.uniform(-5, -1))
        scale = np.float32(0.001 * (1 + 0.02 * abs(np.log10(rate) + 3)))
        losses = []
        for fold in range(n_folds):
            losses.append(write_fold(run_dir, generator, trial_id, fold, target[fold], scale))
            value = {"trial_id": trial_id, "fold": fold, "n_scored": n_rows}
            flat = {m: float(v) for m, v in zip(MEASURES, generator.lognormal(size=len(MEASURES)), strict=True)}
            measured = {"val_loss": losses[-1], "train_loss": 0.9, **flat}
            folds += [{**value, "metric": m, "value": v} for m, v in measured.items()]
        row = {"trial_id": trial_id, "number": number, "state": "complete", "origin": "tpe", "generation": number // 50}
        row |= {"parents": json.dumps([f"t{number - 50:04d}"] if number >= 50 else []), "reason": "", "seed": number}
        row |= {"attempts": 1, "seconds": 60.0, "n_folds": n_folds, "param.lr": rate}
        row |= {f"param.p{k}": float(v) for k, v in enumerate(generator.uniform(size=20))}
        error = float(np.std(losses, ddof=1) / np.sqrt(n_folds))
        row |= {f"metric.{m}": float(v) for m, v in flat.items()}
        trials.append(row | {"metric.val_loss": float(np.mean(losses)), "metric.val_loss.se": error})
    write_tables(run_dir, trials, folds)


def write_fold(
    run_dir: Path, generator: np.random.Generator, trial_id: str, fold: int, target: np.ndarray, scale: np.float32
) -> float:
    """Write the evidence of one fold and return its mean loss."""
    n = len(target)
    prediction = np.float32(0.0001) * generator.standard_normal(n, dtype=np.float32)
    loss = ((target - prediction) / scale) ** 2 / 2 + np.log(scale)
    folder = run_dir / "evidence" / trial_id
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "timestamp": (np.arange(n, dtype=np.int64) + fold * n) * MINUTE_NS,
        "loss": loss.astype(np.float32),
        "crps": np.abs(target - prediction),
        "prediction_5m": prediction,
        "target_5m": target,
        "scale_5m": np.full(n, scale),
    }
    pl.DataFrame(columns).write_parquet(folder / f"fold-{fold:02d}.parquet", compression="zstd")
    return float(loss.mean())


def plan(n_folds: int) -> dict[str, object]:
    ends = [f"{2000 + k}-01-01" for k in range(n_folds + 1)]
    folds = [
        {"train_start": "1990-01-01", "train_end": a, "validation_start": a, "validation_end": b}
        for a, b in pairwise(ends)
    ]
    return {
        "family": "mlp",
        "seed": 0,
        "objectives": [{"metric": "val_loss", "direction": "min"}],
        "folds": folds,
        "ladder": [[k, 1.0] for k in range(n_folds)],
        "marks": {},
        "data_snapshot": "made-up",
        "commit": "",
        "versions": {},
        "started_utc": "2026-01-01T00:00:00+00:00",
    }


if __name__ == "__main__":
    sys.exit(main())
