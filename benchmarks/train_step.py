"""A training step, forward, backward and AdamW: our Mamba-2 block stack against a peer's, tokens/s and peak memory.

On a CPU the peer is transformers' Mamba2Model on its plain PyTorch path, at equal widths and equal parameter counts:

    python -m benchmarks.train_step [--length 120] [--threads 1]

On CUDA, where mamba-ssm can be imported, the peer is its own stack of Mamba-2 blocks in bfloat16, at the size of the
specification's production preset; without mamba-ssm ours runs alone:

    python -m benchmarks.train_step --device cuda

Prints one line of JSON per length. `share_of_limit` is the time that the counted operations of the matrix products of
ours would take at the rate of one large matrix product measured in the same run, over the time that a step took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.measure import interleaved, peak_mib, report_peak
from trainables.layers.blocks import ResidualBlock
from trainables.layers.mamba2 import Mamba2Mixer
from trainables.layers.norms import RMSNorm
from trainables.ops.scan import Impl, choose_compiled_chunk

WARM_UP = 3


class Size(NamedTuple):
    """Widths of a stack of Mamba-2 blocks, and the batch it trains on."""

    width: int
    layers: int
    state: int
    batch: int
    length: int
    head: int = 64
    expand: int = 2
    convolution: int = 4

    @property
    def tokens(self) -> int:
        return self.batch * self.length


CPU_SIZES = {120: Size(256, 2, 64, batch=8, length=120), 1024: Size(256, 2, 64, batch=2, length=1024)}
CUDA_SIZES = {120: Size(512, 24, 128, batch=512, length=120)}


def our_stack(size: Size, impl: Impl = "auto") -> nn.Module:
    """Return the residual blocks of condor and a last norm; `impl` is that of the scan."""
    shape = {"expand": size.expand, "head_dim": size.head, "d_state": size.state, "d_conv": size.convolution}
    shape["impl"] = impl
    blocks = (ResidualBlock(size.width, Mamba2Mixer(size.width, **shape), 0.0) for _ in range(size.layers))
    return nn.Sequential(*blocks, RMSNorm(size.width))


def transformers_stack(size: Size) -> nn.Module:
    """Return transformers' Mamba-2 without its embedding."""
    warnings.simplefilter("ignore")
    import transformers

    transformers.logging.set_verbosity_error()  # it says at every start that its kernels are missing
    config = transformers.Mamba2Config(
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        state_size=size.state,
        head_dim=size.head,
        num_heads=size.expand * size.width // size.head,
        expand=size.expand,
        conv_kernel=size.convolution,
        n_groups=1,
        chunk_size=64,  # with 32 its fastest of 32, 64, 128 and 256, at both lengths
        use_cache=False,
        vocab_size=1,
    )
    return _FromEmbeddings(transformers.Mamba2Model(config))


class _FromEmbeddings(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model.embeddings = nn.Identity()
        self.model = model

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.model(inputs_embeds=x_BTD).last_hidden_state


def mamba_ssm_stack(size: Size) -> nn.Module | None:
    """Return mamba-ssm's blocks with residuals and norms, or None where it is not installed."""
    try:
        from mamba_ssm import Mamba2
    except ImportError:
        return None

    def mixer() -> nn.Module:
        return Mamba2(size.width, d_state=size.state, d_conv=size.convolution, expand=size.expand, headdim=size.head)

    return nn.Sequential(*(ResidualBlock(size.width, mixer(), 0.0) for _ in range(size.layers)), RMSNorm(size.width))


def train_step(model: nn.Module, x_BTD: Tensor) -> Callable[[], None]:
    """Return a call that trains one step on a mean square, in bfloat16 where the data are on a GPU."""
    model = model.to(x_BTD.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    is_cuda = x_BTD.is_cuda

    def step() -> None:
        with torch.autocast(x_BTD.device.type, torch.bfloat16, enabled=is_cuda):
            loss = model(x_BTD).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def flops_per_token(size: Size) -> float:
    """Return the operations of a training step: three times the forward pass, whose matrix products are counted."""
    inner = size.expand * size.width
    projections = size.width * (2 * inner + 2 * size.state + inner // size.head) + inner * size.width
    chunk = choose_compiled_chunk(size.length)
    carried = size.state if chunk < size.length else 0
    scan = chunk * size.state + inner * (chunk + carried) + inner * carried
    return 3.0 * 2 * size.layers * (projections + scan)


def bytes_per_token(size: Size) -> float:
    """Return the bytes that a training step in bfloat16 moves at ordinary kernel boundaries.

    Counted forward per row and layer: norm (read and write D), product in (D, then 2 I + 2 N + H), convolution (twice
    I + 2 N), scan (I + 2 N in, I out), gated norm (2 I in, I out), product out (I, then D), residual (2 D in, D out).
    The backward pass moves the same numbers and their gradients, twice as much. Weights are too few to count.
    """
    d, inner, state, heads = size.width, size.expand * size.width, size.state, size.expand * size.width // size.head
    forward = 7 * d + 10 * inner + 8 * state + heads
    return 2.0 * size.layers * 3 * forward


def matrix_rate(device: str) -> float:
    """Return the operations a second of one large matrix product: the best of several, of the same type as the step."""
    n, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / min(timed(lambda: a @ b, device) for _ in range(20))


def timed(run: Callable[[], object], device: str) -> float:
    """Return the seconds of a call: CPU time of this process, or the GPU's own clock."""
    if device == "cpu":
        begin = time.process_time()
        run()
        return time.process_time() - begin
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def compare(name: str, stacks: dict[str, nn.Module], x_BTD: Tensor, *, flops: float, repeats: int) -> dict[str, object]:
    """Return one line: tokens/s of each model, the first being ours, and its share of the limit of matrix products.

    Args:
        name: Of the line.
        stacks: Models that map (B, T, D) to (B, T, D).
        x_BTD: What they train on.
        flops: Operations that ours needs per token.
        repeats: Counted turns; all models take turns.
    """
    device, tokens = x_BTD.device.type, x_BTD.shape[0] * x_BTD.shape[1]
    steps = {key: train_step(model, x_BTD) for key, model in stacks.items()}
    if device == "cpu":
        seconds = interleaved(steps, repeats)
    else:
        times = {key: [timed(run, device) for _ in range(WARM_UP + repeats)][WARM_UP:] for key, run in steps.items()}
        seconds = {key: statistics.median(values) for key, values in times.items()}
    rate, ours = matrix_rate(device), next(iter(stacks))
    line: dict[str, object] = {
        "benchmark": name,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "batch": x_BTD.shape[0],
        "length": x_BTD.shape[1],
        "width": x_BTD.shape[2],
        "parameters": {key: sum(p.numel() for p in model.parameters()) for key, model in stacks.items()},
        "tokens_per_s": {key: round(tokens / value) for key, value in seconds.items()},
        "ratio": {key: round(value / seconds[ours], 2) for key, value in seconds.items() if key != ours},
        "mflop_per_token": round(flops / 1e6, 2),
        "matrix_gflop_per_s": round(rate / 1e9, 1),
        "share_of_limit": round(flops * tokens / rate / seconds[ours], 3),
    }
    return line


def stacks_of(size: Size, device: str) -> dict[str, nn.Module]:
    """Return ours and the peer."""
    torch.manual_seed(0)
    peer = {"transformers": transformers_stack(size)} if device == "cpu" else {"mamba_ssm": mamba_ssm_stack(size)}
    ours = {"ours": our_stack(size)}
    if device == "cuda":  # not what `auto` takes, for its speed was never seen
        torch.manual_seed(0)
        ours["one_chunk"] = our_stack(size, impl="one_chunk")
    return {**ours, **{key: model for key, model in peer.items() if model is not None}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--length", type=int, help="one of the lengths; default: all of them")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, on a CPU")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--peak", metavar="STACK", help="print the peak MiB of a step of this stack; used by itself")
    options = parser.parse_args()
    sizes = CPU_SIZES if options.device == "cpu" else CUDA_SIZES
    if options.device == "cpu":
        torch.set_num_threads(options.threads)
    for length, size in sizes.items():
        if options.length not in (None, length):
            continue
        x_BTD = torch.randn(size.batch, length, size.width, device=options.device)
        stacks = stacks_of(size, options.device)
        if options.peak:
            model = stacks[options.peak]
            train_step(model, x_BTD[:1, :8])()  # compiled code is there, and no large block is left in the allocator
            report_peak(train_step(model, x_BTD))
            continue
        line = compare("train_step", stacks, x_BTD, flops=flops_per_token(size), repeats=options.repeats)
        if options.device == "cpu":
            arguments = ("benchmarks.train_step", "--length", str(length), "--peak")
            line["peak_mib"] = {name: round(peak_mib(*arguments, name), 1) for name in stacks}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
