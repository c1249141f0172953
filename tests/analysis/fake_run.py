"""A run folder that looks like a real one, from a seeded generator; it holds no market data."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.run_folder import write_plan, write_tables

N_FOLDS = 6
STATES = (
    ("complete",) * 14 + ("stopped",) * 15 + ("failed", "diverged", "diverged", "out_of_memory", "infeasible", "lost")
)
REASONS = {
    "failed": "RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x24 and 32x128) </script><b>&",
    "diverged": "loss is nan in fold 1 at step 212",
    "out_of_memory": "needs 31.2 GiB, the device has 15.7 GiB",
    "infeasible": "d_model must be divisible by head_dim",
    "lost": "worker died 3 times",
    "stopped": "asha: rung 1, loss 1.093 is not among the best third",
}


def plan(**changes: Any) -> dict[str, Any]:
    folds = [
        {
            "train_start": "2000-01-01",
            "train_end": f"{2006 + k // 2}-{1 + 6 * (k % 2):02d}-01",
            "validation_start": f"{2006 + k // 2}-{1 + 6 * (k % 2):02d}-01",
            "validation_end": f"{2006 + (k + 1) // 2}-{1 + 6 * ((k + 1) % 2):02d}-01",
            "n_train": 1500 + 126 * k,
            "n_validation": 126,
        }
        for k in range(N_FOLDS)
    ]
    return {
        "family": "condor",
        "seed": 7,
        "objectives": [{"metric": "val_loss", "direction": "min"}],
        "folds": folds,
        "ladder": [[k, 1.0] for k in range(N_FOLDS)],
        "marks": {"iv": "modelled by GARCH before 2014-01-02", "chain": "modelled by Black-Scholes"},
        "data_snapshot": "5f1d0c9a7be3",
        "commit": "0123abcd",
        "versions": {"torch": "2.13.0", "ray": "2.60.0"},
        "started_utc": "2026-01-05T09:00:00+00:00",
        "ended_utc": "2026-01-05T09:04:11+00:00",
        "wall_s": 251.0,
        "vault": {"start": "2018-07-01", "end": "2019-01-01"},
        "optimizer": "tpe",
        **changes,
    }


def config(generator: np.random.Generator) -> dict[str, Any]:
    has_experts = bool(generator.random() < 0.4)
    point = {
        "lr": float(10 ** generator.uniform(-4.5, -2)),
        "d_model": int(generator.choice([32, 64, 128])),
        "n_layers": int(generator.integers(1, 5)),
        "dropout": float(np.round(generator.uniform(0, 0.4), 3)),
        "normalizer": str(generator.choice(["mad", "zscore", "instance"])),
        "moe": has_experts,
        "epochs": 4,
    }
    return point | ({"moe_n_experts": int(generator.choice([2, 4, 8]))} if has_experts else {})


def fold_evidence(
    generator: np.random.Generator, fold: int, skill: float, shocks: np.ndarray, level: float = 1.0
) -> pl.DataFrame:
    n = 126
    start = datetime(2006 + fold // 2, 1 + 6 * (fold % 2), 1, 21, tzinfo=UTC)
    target = shocks[fold]
    prediction = skill * target + 0.004 * generator.standard_normal(n)
    loss = (target - prediction) ** 2
    loss *= level / loss.mean()
    return pl.DataFrame(
        {
            "timestamp": [start + timedelta(days=k) for k in range(n)],
            "loss": loss.astype(np.float32),
            "crps": np.abs(target - prediction).astype(np.float32) * 0.6,
            "prediction_1d": prediction.astype(np.float32),
            "target_1d": target.astype(np.float32),
            "scale_1d": np.full(n, 0.01, np.float32),
        }
    )


def write(
    run_dir: Path, *, seed: int = 0, states: tuple[str, ...] = STATES, n_folds: int = N_FOLDS, **changes: Any
) -> Path:
    """Write a run folder with one trial for each given state, evidence included."""
    generator = np.random.default_rng(seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_plan(run_dir, plan(**changes))
    (run_dir / "space.yaml").write_text("family: condor\n", encoding="utf-8")
    shocks = 0.011 * generator.standard_normal((n_folds, 126))
    level = 1.0 + 0.25 * generator.standard_normal(n_folds)
    trials, folds = [], []
    order = generator.permutation(len(states))
    for number, which in enumerate(order):
        state, point, trial_id = states[which], config(generator), f"t{number:04d}"
        seen = {"complete": n_folds, "stopped": min(n_folds, 1 + number % 3), "diverged": min(n_folds, 1)}.get(state, 0)
        quality = 0.04 * abs(np.log10(point["lr"]) + 3.2) + 0.02 * (point["normalizer"] == "instance")
        losses = level[:seen] + quality + 0.03 * generator.standard_normal(seen)
        measures = {
            "val_loss": losses,
            "ic": 0.06 - quality / 2 + 0.05 * generator.standard_normal(seen),
            "crps": 0.4 * losses + 0.01 * generator.standard_normal(seen),
            "flatness": np.exp(generator.normal(2 + 5 * quality, 0.4, seen)),
            "train_loss": losses - 0.1,
        }
        row = {
            "trial_id": trial_id,
            "number": number,
            "state": state,
            "origin": "enqueued" if number < 5 else "random" if number < 12 else "tpe",
            "generation": number // 12,
            "parents": json.dumps([f"t{number - 12:04d}"] if number >= 24 else []),
            "reason": REASONS.get(state, ""),
            "seed": int(generator.integers(1 << 31)),
            "attempts": {"lost": 3, "infeasible": 0}.get(state, 1),
            "seconds": float(2.5 * seen + generator.uniform(0, 1)),
            "n_folds": seen,
        }
        row |= {f"param.{k}": v for k, v in point.items()}
        for metric, values in measures.items() if seen else ():
            row[f"metric.{metric}"] = float(values.mean())
            row[f"metric.{metric}.se"] = float(values.std(ddof=1) / np.sqrt(seen)) if seen > 1 else None
            folds += [
                {"trial_id": trial_id, "fold": k, "metric": metric, "value": float(v), "n_scored": 126, "share": 1.0}
                for k, v in enumerate(values)
            ]
        trials.append(row)
        folder = run_dir / "evidence" / trial_id
        for fold in range(seen):
            folder.mkdir(parents=True, exist_ok=True)
            fold_evidence(generator, fold, 0.05, shocks, losses[fold]).write_parquet(
                folder / f"fold-{fold:02d}.parquet"
            )
    write_tables(run_dir, trials, folds)
    return run_dir
