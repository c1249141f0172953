"""What an engine costs over the bare step of a model: forward, backward, clipping and AdamW, written by hand.

    python -m benchmarks.engine [--width 256] [--layers 2] [--length 120] [--batch 16] [--repeats 15]

Candidates take turns in one process, one step a turn; medians of CPU time, or of wall time on CUDA. Prints a line of
JSON with the parameter count.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial

from benchmarks.measure import THREADS, interleaved

for name in THREADS:
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from torch import nn  # noqa: E402

from trainables.condor.config import CondorConfig  # noqa: E402
from trainables.condor.losses import target_names  # noqa: E402
from trainables.condor.trainable import FAMILY  # noqa: E402
from trainables.training.engine import open_engine  # noqa: E402
from trainables.training.family import Batch  # noqa: E402


def main() -> None:
    """Measure and print."""
    given = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = CondorConfig(
        d_model=given.width, n_layers=given.layers, lookback=given.length, batch_size=given.batch, accum_steps=1,
        precision=given.precision,
    )  # fmt: skip
    batch = Batch(
        windows=torch.randn(given.batch, given.length, config.n_features, device=device),
        targets=torch.rand(given.batch, len(target_names(0)), device=device) + 0.1,
    )
    candidates = {"bare": _bare(config, batch, device)}
    for label, engine, stage in (
        ("plain", "plain", 0),
        ("deepspeed-0", "deepspeed", 0),
        ("deepspeed-1", "deepspeed", 1),
    ):
        candidates[label] = _engine(config.model_copy(update={"zero_stage": stage}), engine, batch, device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds = interleaved(candidates, given.repeats, clock)
    print(
        json.dumps(
            {
                "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
                "n_parameters": config.n_parameters(),
                "width": given.width,
                "layers": given.layers,
                "length": given.length,
                "batch": given.batch,
                "bare_ms": round(1e3 * seconds["bare"], 2),
                **{f"{n}_over_bare": round(s / seconds["bare"], 3) for n, s in seconds.items() if n != "bare"},
            }
        )
    )


def _bare(config: CondorConfig, batch: Batch, device: torch.device) -> Callable[[], float]:
    torch.manual_seed(0)
    model = FAMILY.build_model(config, config.seen_features()).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    dtype = torch.bfloat16 if config.precision == "bf16" else None

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            outputs = model(batch.windows)
        loss = FAMILY.loss(config, outputs, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        return loss.item()

    return step


def _engine(config: CondorConfig, name: str, batch: Batch, device: torch.device) -> Callable[[], float]:
    torch.manual_seed(0)
    model = FAMILY.build_model(config, config.seen_features())
    engine = open_engine(name, model, partial(FAMILY.loss, config), config, device)
    return lambda: engine.train_step([batch], 1e-4).loss


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--length", type=int, default=120)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=15)
    return parser.parse_args()


if __name__ == "__main__":
    main()
