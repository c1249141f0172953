"""One training step of grok against a plain `nn.TransformerEncoder` of equal width, depth and heads, same windows.

    python -m benchmarks.train_step_grok [--rows 390] [--d-model 64] [--blocks 2] [--batch 4] [--device cpu]

The encoder sees every row as one token of width d; grok sees six, one a group, and attends over them as well. So grok
does about six times the arithmetic per row: the line gives rows and tokens a second, and parameters, of both.
"""

from __future__ import annotations

import os

from benchmarks.measure import THREADS, interleaved, peak_mib, report_peak

os.environ.update(dict.fromkeys(THREADS, "1"))

import argparse
import json
import time

import torch
from torch import nn

from trainables.features.schemas import NQ
from trainables.grok.config import CONTEXT, GrokConfig
from trainables.grok.losses import training_loss
from trainables.grok.model import GrokModel

COLUMNS = (*NQ, *CONTEXT)
N_OUTPUTS = 42


class PlainEncoder(nn.Module):
    """A linear map of all features, PyTorch's encoder, and a linear map of the last row to the 42 quantiles."""

    def __init__(self, config: GrokConfig) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            config.d_model, config.n_heads, config.ffn_mult * config.d_model, config.dropout, "gelu", batch_first=True
        )
        self.embed = nn.Linear(len(NQ), config.d_model)
        self.encoder = nn.TransformerEncoder(layer, config.n_blocks, enable_nested_tensor=False)
        self.head = nn.Linear(config.d_model, N_OUTPUTS)

    def forward(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        state = self.encoder(self.embed(windows[..., : len(NQ)]))[:, -1]
        return {"quantiles": self.head(state).unflatten(-1, (6, 7)).float() * 1e-3}


def step_of(kind: str, given: argparse.Namespace):
    """Return a function that does one step, and the number of parameters."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = GrokConfig(
        window_bars=given.rows,
        d_model=given.d_model,
        n_blocks=given.blocks,
        n_heads=given.heads,
        batch_size=given.batch,
        grad_checkpoint=given.checkpoint,
    )
    model = (GrokModel(config, COLUMNS) if kind == "grok" else PlainEncoder(config)).to(given.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    windows = torch.randn(given.batch, given.rows, len(COLUMNS), device=given.device)
    windows[..., -1], windows[..., -3] = 1, 2
    returns = torch.randn(given.batch, 6, device=given.device) * 1e-3
    is_cuda = given.device == "cuda"

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(given.device, torch.bfloat16, enabled=is_cuda):
            outputs = model(windows)
        training_loss(config, outputs, returns).backward()
        optimizer.step()
        if is_cuda:
            torch.cuda.synchronize()

    return step, sum(p.numel() for p in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"rows": 390, "d_model": 64, "blocks": 2, "heads": 4, "batch": 4, "repeats": 7}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--checkpoint", action="store_true", help="recompute grok's blocks in the backward pass")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak", choices=("grok", "encoder"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        step, _ = step_of(given.peak, given)
        report_peak(step)
        return
    steps = {kind: step_of(kind, given) for kind in ("grok", "encoder")}
    clock = time.perf_counter if given.device == "cuda" else time.process_time
    seconds = interleaved({kind: step for kind, (step, _) in steps.items()}, given.repeats, clock)
    rows = given.batch * given.rows
    tokens = {"grok": 6 * rows, "encoder": rows}
    line = {
        "benchmark": "train_step_grok",
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu, 1 thread",
        **{name: getattr(given, name) for name in ("rows", "d_model", "blocks", "heads", "batch", "checkpoint")},
        "parameters": {kind: count for kind, (_, count) in steps.items()},
        "seconds": {kind: round(value, 4) for kind, value in seconds.items()},
        "rows_per_s": {kind: round(rows / value) for kind, value in seconds.items()},
        "tokens_per_s": {kind: round(tokens[kind] / value) for kind, value in seconds.items()},
        "peak_mib": {kind: round(_peak(kind, given)) for kind in steps},
    }
    print(json.dumps(line))


def _peak(kind: str, given: argparse.Namespace) -> float:
    """Return the MiB that a step needs at most: of the GPU, or of a fresh process's memory."""
    if given.device == "cuda":
        step, _ = step_of(kind, given)
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / 2**20
    sizes = ("rows", "d_model", "blocks", "heads", "batch")
    flags = [part for name in sizes for part in (f"--{name.replace('_', '-')}", str(getattr(given, name)))]
    return peak_mib("benchmarks.train_step_grok", "--peak", kind, *flags, *(["--checkpoint"] * given.checkpoint))


if __name__ == "__main__":
    main()
