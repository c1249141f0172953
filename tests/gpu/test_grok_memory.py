"""Grok at the document's size on one GPU: peak memory with checkpoints, and fused attention against the reference."""

import json

import pytest
import torch

from trainables.features.schemas import NQ
from trainables.grok.config import CONTEXT, GrokConfig
from trainables.grok.losses import training_loss
from trainables.grok.model import GrokModel
from trainables.ops.attention import attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ROWS, BATCH = 7000, 8
MOST_BYTES = 20e9


@pytest.mark.requirement("GROK-9")
def test_a_step_at_the_document_s_size_stays_under_twenty_gigabytes():
    """T = 7000, V = 6, d = 512, B = 8, eight blocks, bf16, one checkpoint a block; optimiser state on its own."""
    config = GrokConfig(window_bars=ROWS, batch_size=BATCH, precision="bf16")
    model = GrokModel(config, (*NQ, *CONTEXT)).cuda().train()
    windows = torch.randn(BATCH, ROWS, len(NQ) + len(CONTEXT), device="cuda")
    windows[..., -1], windows[..., -3] = 1, 2
    windows[0, -700:, -1] = 0
    returns = torch.randn(BATCH, 6, device="cuda") * 1e-3
    torch.cuda.reset_peak_memory_stats()
    with torch.autocast("cuda", torch.bfloat16):
        outputs = model(windows)
    training_loss(config, outputs, returns).backward()
    peak = torch.cuda.max_memory_allocated()
    optimiser = 8 * config.n_parameters()
    print(json.dumps({"peak_gb": round(peak / 1e9, 2), "optimiser_state_gb": round(optimiser / 1e9, 2)}))
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert peak < MOST_BYTES


@pytest.mark.requirement("GROK-8")
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("n_keys", [1, 63, 1000])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_chosen_attention_agrees_with_the_reference(n_keys, is_causal, dtype):
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(3, n_keys, generator=generator) < 0.7
    valid[:, -1] = True
    sizes = (3, 4, n_keys, 64)
    exact = [torch.randn(sizes, generator=generator).cuda().requires_grad_() for _ in range(3)]
    near = [each.detach().to(dtype).requires_grad_() for each in exact]
    found = []
    for impl, given in (("reference", exact), ("auto", near)):
        y = attention(*given, is_causal=is_causal, valid_BS=valid.cuda(), impl=impl)
        y.float().square().sum().backward()
        found.append([y.float(), *(each.grad.float() for each in given)])
    atol = 1e-4 if dtype == torch.float32 else 2e-2
    for expected, given in zip(*found, strict=True):
        torch.testing.assert_close(given, expected, atol=atol * max(1.0, float(expected.abs().max())), rtol=atol)


def test_more_rows_than_a_launch_takes():
    q, k, v = (torch.randn(70_001, 2, 6, 8, device="cuda") for _ in range(3))
    found = attention(q, k, v, is_causal=False, impl="sdpa")
    torch.testing.assert_close(found, attention(q, k, v, is_causal=False, impl="reference"), atol=1e-4, rtol=1e-3)
