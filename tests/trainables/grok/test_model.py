"""The parts of Grok-SL and the whole: what the specification says that a test observes."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from trainables.data.zones import NS_PER_SECOND, instant
from trainables.features.nq import calendar_inputs
from trainables.features.schemas import NQ
from trainables.grok.config import CONTEXT, LEVELS, MEDIAN, GrokConfig
from trainables.grok.embedding import (
    CyclicPositions,
    GroupProjection,
    InstanceNorm,
    last_valid,
    patched,
    phases,
    right_padded,
)
from trainables.grok.heads import QuantileHeads
from trainables.grok.model import GrokModel
from trainables.grok.rows import PERIODS
from trainables.layers.lite_gate import LiteGateUnit
from trainables.layers.two_stage_attention import TwoStageAttention

COLUMNS = (*NQ, *CONTEXT)
TINY = {"d_model": 16, "n_heads": 2, "n_blocks": 2, "window_bars": 40, "dropout": 0.0, "grad_checkpoint": False}


def windows(batch=3, rows=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, rows, len(COLUMNS), generator=generator)
    x[..., COLUMNS.index("valid")] = 1
    x[..., COLUMNS.index("weekday")] = torch.randint(0, 5, (batch, rows), generator=generator).float()
    x[..., COLUMNS.index("raw_return")] *= 3e-4
    return x


def model(seed=0, **fields):
    torch.manual_seed(seed)
    return GrokModel(GrokConfig(**{**TINY, **fields}), COLUMNS).eval()


def quantiles(net, x):
    with torch.no_grad():
        return net(x)["quantiles"]


@pytest.mark.requirement("GROK-1")
def test_parts_come_in_the_order_of_the_pipeline():
    parts = [name for name, _ in model(conv_stem="k3", scale_conditioning="static_token").named_children()]
    expected = ["instance_norm", "groups", "positions", "static", "stem", "blocks", "readout", "heads"]
    assert parts == expected
    assert [name for name, _ in model().blocks[0].named_children()] == ["attention", "gate", "feed_forward", "norm"]


@pytest.mark.requirement("GROK-2")
def test_there_is_a_token_for_every_bar():
    lengths = []
    net = model()
    net.blocks[0].register_forward_pre_hook(lambda _, inputs: lengths.append(tuple(inputs[0].shape)))
    quantiles(net, windows())
    assert lengths == [(3, 40, 6, 16)]


@pytest.mark.requirement("HYP-6")
@pytest.mark.parametrize(("patch", "n_tokens"), [(8, 5), (16, 3)])
def test_a_patched_model_has_fewer_tokens(patch, n_tokens):
    lengths = []
    net = model(patch=patch)
    net.blocks[0].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    quantiles(net, windows())
    assert lengths == [n_tokens] == [math.ceil(40 / patch)]


@pytest.mark.requirement("GROK-12")
@pytest.mark.parametrize("param", ["free", "cumulative_softplus"])
def test_quantiles_have_their_shape_and_begin_as_a_normal_of_the_window_s_volatility(param):
    net = model(quantile_param=param)
    x = windows()
    with torch.no_grad():
        net.heads.weight.zero_()
    found = quantiles(net, x)
    assert found.shape == (3, 6, 7)
    sigma = x[..., COLUMNS.index("raw_return")].square().mean(1).sqrt()
    normal = torch.special.ndtri(torch.tensor(LEVELS))
    expected = sigma[:, None, None] * torch.tensor([5.0, 15, 30, 60, 120, 240]).sqrt()[:, None] * normal
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.requirement("GROK-12")
def test_positive_steps_never_cross():
    heads = QuantileHeads(GrokConfig(**TINY, quantile_param="cumulative_softplus"))
    assert (heads(10 * torch.randn(64, 16)).diff(dim=-1) > 0).all()


@pytest.mark.requirement("GROK-3")
def test_instance_norm_sees_valid_rows_of_the_window_only():
    norm, x = InstanceNorm(5, 1e-9), torch.randn(4, 50, 5) * 3 + 7
    valid = torch.ones(4, 50, dtype=bool)
    valid[0, 30:], valid[1, 10:20] = False, False
    y = norm(x, valid)
    for i in range(4):
        assert y[i, valid[i]].mean(0).abs().max() < 1e-5
        assert (y[i, valid[i]].var(0, correction=0) - 1).abs().max() < 1e-4
    torch.testing.assert_close(norm(2.5 * x - 3, valid), y, atol=1e-4, rtol=1e-4)
    changed = torch.where(valid[..., None], x, 99.0)
    torch.testing.assert_close(norm(changed, valid)[valid], y[valid])


@pytest.mark.requirement("GROK-3")
def test_the_model_does_not_see_level_and_scale_of_a_feature():
    net, x = model(), windows()
    y = x.clone()
    y[..., :24] = 4.0 * x[..., :24] + 2.0
    torch.testing.assert_close(quantiles(net, y), quantiles(net, x), atol=1e-6, rtol=1e-3)
    assert not torch.allclose(quantiles(model(use_in=False), y), quantiles(model(use_in=False), x), rtol=1e-2)


@pytest.mark.requirement("GROK-4")
def test_each_group_is_mapped_by_its_own_matrix():
    projection = GroupProjection([[0, 1, 2], [3], [1, 4]], 8)
    assert [tuple(p.weight.shape) for p in projection.projections] == [(8, 3), (8, 1), (8, 2)]
    x = torch.randn(2, 6, 5)
    y = projection(x)
    assert y.shape == (2, 6, 3, 8)
    torch.testing.assert_close(y[:, :, 2], projection.projections[2](x[..., [1, 4]]))
    assert model(gap_group="temporal").groups(torch.randn(2, 5, 24)).shape == (2, 5, 7, 16)


def positions_of(times):
    clock, _ = calendar_inputs(np.array(times, dtype=np.int64))
    cyclic = phases(torch.from_numpy(clock[:, [0, 2, 3]].astype(float)), PERIODS)
    return torch.cat([cyclic, torch.from_numpy(clock[:, 1:2].astype(float))], dim=1).float()


@pytest.mark.requirement("GROK-5")
def test_cyclic_positions_repeat_with_their_periods():
    from datetime import date, time

    layer = CyclicPositions(12)
    first = instant(date(2024, 3, 4), time(9, 30))
    rows = positions_of([first, first, first + 60 * NS_PER_SECOND, instant(date(2024, 3, 5), time(9, 30))])
    with torch.no_grad():
        y = layer(rows[None])[0]
    assert torch.equal(y[0], y[1])
    assert not torch.allclose(y[0], y[2])
    assert torch.equal(rows[0, :2], rows[3, :2])  # a day later: the same time of day
    assert layer.mix.weight.shape == (12, 18)
    assert layer.weekday.weight.shape == (7, 12)
    angle = 2 * math.pi * 570 / 1440
    torch.testing.assert_close(rows[0, :2], torch.tensor([math.sin(angle), math.cos(angle)]))


@pytest.mark.requirement("GROK-5")
@pytest.mark.requirement("HYP-5")
def test_positions_can_be_switched_off_and_moved_to_the_input():
    x = windows()
    later = x.clone()
    later[..., COLUMNS.index("minute_sin")] = 0.3
    off, at_input = model(use_pe=False), model(pe_input=True)
    assert torch.equal(quantiles(off, later), quantiles(off, x))
    assert off.positions is None
    assert at_input.to_input.weight.shape == (24, 16)
    assert not torch.allclose(quantiles(at_input, later), quantiles(at_input, x), rtol=1e-5)


def mask(batch, rows):
    valid = torch.ones(batch, rows, dtype=bool)
    valid[0, rows - rows // 3 :] = False
    valid[1, : rows // 4] = False
    return valid


@pytest.mark.requirement("GROK-6")
@pytest.mark.parametrize("is_causal", [False, True])
def test_time_attention_equals_a_loop_over_variables(is_causal):
    layer = TwoStageAttention(16, 2, dropout=0.0, is_causal=is_causal, over_variables=False)
    x, valid = torch.randn(3, 11, 4, 16), mask(3, 11)
    found = layer(x, valid)
    judge = nn.MultiheadAttention(16, 2, batch_first=True)
    judge.load_state_dict(
        {
            "in_proj_weight": layer.time.project_in.weight,
            "in_proj_bias": layer.time.project_in.bias,
            "out_proj.weight": layer.time.project_out.weight,
            "out_proj.bias": layer.time.project_out.bias,
        }
    )
    later = torch.ones(11, 11, dtype=bool).triu(1) if is_causal else None
    for v in range(4):
        row = x[:, :, v]
        attended, _ = judge(row, row, row, key_padding_mask=~valid, attn_mask=later, need_weights=False)
        expected = functional.layer_norm(row + attended, (16,), layer.time_norm.weight, layer.time_norm.bias)
        torch.testing.assert_close(found[:, :, v][valid], expected[valid], atol=1e-5, rtol=1e-4)


@pytest.mark.requirement("GROK-6")
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("place", [0, 4, 8])
def test_one_valid_row_is_enough(place, is_causal):
    net, x = model(causal=is_causal), windows(rows=9)
    x[..., COLUMNS.index("valid")] = 0
    x[:, place, COLUMNS.index("valid")] = 1
    net.train()
    net(x)["quantiles"].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.requirement("GROK-7")
def test_variable_attention_is_blind_to_the_order_of_groups_and_equals_a_loop_over_time():
    layer, x = TwoStageAttention(16, 2, dropout=0.0), torch.randn(2, 7, 5, 16)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(layer(x[:, :, order]), layer(x)[:, :, order], atol=1e-5, rtol=1e-4)
    without = TwoStageAttention(16, 2, dropout=0.0, over_variables=False)
    without.load_state_dict(layer.state_dict(), strict=False)
    middle = without(x)
    steps = [layer.variable_norm(middle[:, t] + layer.variable(middle[:, t])) for t in range(7)]
    torch.testing.assert_close(layer(x), torch.stack(steps, dim=1), atol=1e-5, rtol=1e-4)


@pytest.mark.requirement("HYP-3")
def test_without_variable_attention_groups_meet_in_the_readout_only():
    a, b = GrokConfig(**TINY), GrokConfig(**TINY, variable_attention=False)
    differing = {k for k, v in a.model_dump().items() if b.model_dump()[k] != v}
    assert differing == {"variable_attention"}
    net = model(variable_attention=False)
    states = []
    net.blocks[-1].register_forward_hook(lambda *hook: states.append(hook[2]))
    x = windows()
    changed = x.clone()
    changed[..., NQ.index("mfi")] = torch.randn(3, 40)
    quantiles(net, x), quantiles(net, changed)
    assert torch.equal(states[0][:, :, :5], states[1][:, :, :5])
    assert not torch.equal(states[0][:, :, 5], states[1][:, :, 5])


@pytest.mark.requirement("GROK-10")
def test_the_gate_is_half_open_at_first_and_chooses():
    torch.manual_seed(0)
    gate = LiteGateUnit(64)
    x, y = torch.randn(500, 64), torch.randn(500, 64)
    assert abs(gate.gate(x, y).mean() - 0.5) < 0.02
    with torch.no_grad():
        gate.gate_x.bias.fill_(-1e4)
        torch.testing.assert_close(gate(x, y), x)
        gate.gate_x.bias.fill_(1e4)
        candidate = torch.tanh(gate.candidate_x(x) + gate.candidate_y(y))
        torch.testing.assert_close(gate(x, y), candidate)


@pytest.mark.requirement("GROK-11")
@pytest.mark.parametrize("readout", ["flatten", "mean", "attn"])
def test_the_readout_takes_the_last_valid_row(readout):
    valid = mask(3, 40)
    place = last_valid(valid)
    assert place[0] == valid[0].sum() - 1
    assert place.tolist() == [26, 39, 39]
    net, x = model(readout=readout), windows()
    rows = []
    net.readout.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0]))
    outputs = []
    net.blocks[-1].register_forward_hook(lambda *hook: outputs.append(hook[2]))
    x[..., COLUMNS.index("valid")] = valid.float()
    quantiles(net, x)
    torch.testing.assert_close(rows[0], torch.stack([outputs[0][i, p] for i, p in enumerate(place)]))


@pytest.mark.requirement("DATA-3")
@pytest.mark.parametrize(
    "switches",
    [{}, {"conv_stem": "k5"}, {"causal": True}, {"patch": 8}, {"scale_conditioning": "static_token"}],
    ids=str,
)
def test_padding_changes_nothing(switches):
    net, x = model(max_len=64, **switches), windows(batch=2)
    padded = right_padded(list(x), 64)
    assert padded.shape == (2, 64, len(COLUMNS))
    torch.testing.assert_close(quantiles(net, padded), quantiles(net, x), atol=1e-7, rtol=1e-4)
    poisoned = padded.clone()
    poisoned[:, 40:, :-1] = torch.nan
    assert torch.equal(quantiles(net, poisoned), quantiles(net, padded))


@pytest.mark.slow
@pytest.mark.requirement("DATA-3")
def test_padding_to_seven_thousand_rows_changes_nothing():
    net, x = model(n_blocks=1, d_model=4), windows(batch=1)
    torch.testing.assert_close(quantiles(net, right_padded(list(x), 7000)), quantiles(net, x), atol=1e-7, rtol=1e-4)


def test_windows_that_cannot_be_used_are_refused():
    net, x = model(max_len=40), windows()
    x[1, :, COLUMNS.index("valid")] = 0
    with pytest.raises(ValueError, match="at least one valid row in each"):
        net(x)
    with pytest.raises(ValueError, match="at most max_len = 40 rows, found 41"):
        net(windows(rows=41))
    with pytest.raises(ValueError, match="at most max_len = 39 rows, found 40"):
        right_padded(list(windows()), 39)


@pytest.mark.requirement("GROK-13")
def test_a_shorter_horizon_reaches_longer_ones_only():
    for heads, expected in (("autoregressive", [True] * 6), ("independent", [True] + [False] * 5)):
        net, x = model(heads=heads), windows()
        before = quantiles(net, x)
        with torch.no_grad():
            net.heads.bias[0] += 1.0
        changed = [not torch.equal(a, b) for a, b in zip(before.unbind(1), quantiles(net, x).unbind(1), strict=True)]
        assert changed == expected
    net, before = model(), quantiles(model(), windows())
    with torch.no_grad():
        net.heads.bias[3] += 1.0
    found = quantiles(net, windows())
    assert torch.equal(found[:, :3], before[:, :3])
    assert not torch.equal(found[:, 4:], before[:, 4:])


@pytest.mark.requirement("GROK-13")
def test_the_median_is_detached_in_training_and_not_in_evaluation():
    for is_training, is_zero in ((True, True), (False, False)):
        net = model().train(is_training)
        net(windows())["quantiles"][:, 5].sum().backward()
        assert (net.heads.bias.grad[0] == 0).all() == is_zero
        assert MEDIAN == 3


@pytest.mark.requirement("GROK-13")
def test_evaluation_is_always_free_running():
    net = model(teacher_forcing_ratio=1.0)
    assert set(net(windows())) == {"quantiles"}
    assert set(net.train()(windows())) == {"quantiles", "state", "scale", "heads"}
    assert torch.equal(quantiles(net.eval(), windows()), quantiles(model(), windows()))


@pytest.mark.requirement("GROK-15")
def test_the_stem_is_causal_and_keeps_the_length():
    net, x = model(conv_stem="k5"), windows()
    tokens, _ = net._embedded(x, torch.ones(3, 40, dtype=bool))
    assert tokens.shape == (3, 40, 6, 16)
    z = torch.randn(2, 12, 6, 16)
    later = z.clone()
    later[:, 8:] += 1
    torch.testing.assert_close(net._stemmed(later)[:, :8], net._stemmed(z)[:, :8])
    assert not torch.allclose(net._stemmed(later)[:, 8:], net._stemmed(z)[:, 8:] + 1)


@pytest.mark.requirement("C-6")
def test_a_causal_encoder_has_no_look_ahead():
    net, x = model(causal=True, use_in=False), windows()
    states = []
    net.blocks[-1].register_forward_hook(lambda *hook: states.append(hook[2]))
    later = x.clone()
    later[:, 25:, :24] += 1
    quantiles(net, x), quantiles(net, later)
    torch.testing.assert_close(states[1][:, :25], states[0][:, :25], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(states[1][:, 25:], states[0][:, 25:], atol=1e-3)


@pytest.mark.requirement("C-9")
def test_scale_conditioning():
    x = windows()
    louder = x.clone()
    louder[..., COLUMNS.index("raw_return")] *= 3
    torch.testing.assert_close(quantiles(model(), louder), 3 * quantiles(model(), x), rtol=1e-4, atol=1e-9)
    none = model(scale_conditioning="none")
    assert torch.equal(quantiles(none, louder), quantiles(none, x))
    shifted = x.clone()
    shifted[..., :24] = 3.0 * x[..., :24]
    static = model(scale_conditioning="static_token")
    torch.testing.assert_close(quantiles(none, shifted), quantiles(none, x), rtol=1e-3, atol=1e-6)
    assert not torch.allclose(quantiles(static, shifted), quantiles(static, x), rtol=1e-2)


@pytest.mark.requirement("TRAIN-7")
def test_checkpoints_change_no_gradient():
    gradients = []
    for grad_checkpoint in (False, True):
        net = model(grad_checkpoint=grad_checkpoint, dropout=0.2).train()
        torch.manual_seed(1)
        net(windows())["quantiles"].square().sum().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_a_block_is_recomputed_once():
    net, calls = model(grad_checkpoint=True).train(), Counter()
    for place, block in enumerate(net.blocks):
        block.register_forward_pre_hook(lambda *_, place=place: calls.update([place]))
    net(windows())["quantiles"].sum().backward()
    assert calls == {0: 2, 1: 2}


def test_sixteen_bit_weights_and_autocast_give_near_forecasts():
    net, x = model(), windows()
    exact = quantiles(net, x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = quantiles(net, x)
    half = quantiles(model().bfloat16(), x.bfloat16())
    spread = exact.std()
    assert (mixed - exact).abs().max() < 0.05 * spread
    assert (half - exact).abs().max() < 0.1 * spread


def test_patches_are_valid_where_one_of_their_rows_is():
    valid = torch.zeros(1, 20, dtype=bool)
    valid[0, [3, 17]] = True
    assert patched(valid, 8).tolist() == [[True, False, True]]
    assert torch.equal(patched(valid, 1), valid)
