"""What the documents claim of switches of their models, as data: HYP-1 to HYP-8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from analysis.measures.effects import Kind

Rows = Literal["all", "unquiet", "open", "close", "friday"]
LARGEST = "largest"
"""In `Claim.base`: the largest value of the run, such as the longest window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a document expects of a switch.

    Attributes:
        name: `HYP-3`.
        words: The claim, for a reader.
        base: Parameter -> value of the form that the claim favours.
        ablated: Parameter -> value of the form without it; the same parameters.
        measure: `crps` or `loss` of rows, `ic`, or a metric of folds such as `regime_accuracy`.
        kind: How both are compared.
        threshold: From which effect on the claim is supported.
        horizon: Label of the horizon of an IC; none: the shortest.
        rows: Which rows are scored: `all`; `unquiet`, the third with the highest past volatility; `open` and `close`,
            the first and last half hour of the New York session; `friday`.
    """

    name: str
    words: str
    base: Mapping[str, Any]
    ablated: Mapping[str, Any]
    measure: str
    kind: Kind
    threshold: float
    horizon: str | None = None
    rows: Rows = "all"
    family: str = field(default="grok")


def _unquiet(words: str, **ablated: bool) -> Claim:
    return Claim(
        name="HYP-1",
        words=f"{words} CRPS in unquiet times 20 % lower",
        base=dict.fromkeys(ablated, True),
        ablated=ablated,
        measure="crps",
        kind="reduction",
        threshold=0.20,
        rows="unquiet",
    )


def _module(
    words: str, base: Mapping[str, Any], ablated: Mapping[str, Any], measure: str, kind: Kind, by: float
) -> Claim:
    return Claim(
        name="HYP-8", words=words, base=base, ablated=ablated, measure=measure, kind=kind, threshold=by, family="condor"
    )


CLAIMS: tuple[Claim, ...] = (
    _unquiet("instance normalisation makes", use_in=False),
    _unquiet("the cyclic embedding makes", use_pe=False),
    _unquiet("both together make", use_in=False, use_pe=False),
    *(
        Claim(
            name="HYP-2",
            words=f"the longest window against {bars} bars adds 0.05 of IC at {horizon}",
            base={"window_bars": LARGEST},
            ablated={"window_bars": bars},
            measure="ic",
            kind="difference",
            threshold=0.05,
            horizon=horizon,
        )
        for bars in (32, 64, 390, 1380)
        for horizon in ("120m", "240m")
    ),
    Claim(
        name="HYP-3",
        words="without attention over variables IC drops by 15 %",
        base={"variable_attention": True},
        ablated={"variable_attention": False},
        measure="ic",
        kind="loss_of_gain",
        threshold=0.15,
    ),
    *(
        Claim(
            name="HYP-5",
            words=f"the cyclic embedding adds 0.03 of IC ({rows})",
            base={"use_pe": True},
            ablated={"use_pe": False},
            measure="ic",
            kind="difference",
            threshold=0.03,
            rows=rows,
        )
        for rows in ("open", "close", "friday")
    ),
    *(
        Claim(
            name="HYP-6",
            words=f"no patches against patches of {bars} make IC at {horizon} 10 % higher",
            base={"patch": "none"},
            ablated={"patch": bars},
            measure="ic",
            kind="gain",
            threshold=0.10,
            horizon=horizon,
        )
        for bars in (8, 16)
        for horizon in ("5m", "15m")
    ),
    Claim(
        name="HYP-7",
        words="the lite gate cuts the variance of gradients by 40 %",
        base={"lgu": True},
        ablated={"lgu": False},
        measure="grad_norm_variance",
        kind="reduction",
        threshold=0.40,
    ),
    Claim(
        name="HYP-7",
        words="the chain of horizons makes tail accuracy 20 % higher",
        base={"heads": "autoregressive"},
        ablated={"heads": "independent"},
        measure="tail_accuracy",
        kind="gain",
        threshold=0.20,
    ),
    Claim(
        name="HYP-7",
        words="a calm beginning makes training steadier",
        base={"lowvol_curriculum": True},
        ablated={"lowvol_curriculum": False},
        measure="grad_norm_variance",
        kind="reduction",
        threshold=0.0,
    ),
    _module(
        "the composite loss makes the Sharpe ratio of the policy 15 % higher",
        {"loss": "composite"}, {"loss": "base"}, "policy_sharpe", "gain", 0.15,
    ),
    _module(
        "attention gated by volatility makes regime accuracy 20 % higher",
        {"vol_gated_attn": True}, {"vol_gated_attn": False}, "regime_accuracy", "gain", 0.20,
    ),
    _module(
        "routing to the best expert loses nothing against all of them",
        {"moe": "topk"}, {"moe": "soft"}, "loss", "reduction", 0.0,
    ),
    _module(
        "manifold features lower the loss in every regime",
        {"feature_schema": 32}, {"feature_schema": 24}, "loss", "reduction", 0.0,
    ),
    _module(
        "the topological feature tells cycles from trends: a lower loss",
        {"tda": True}, {"tda": False}, "loss", "reduction", 0.0,
    ),
)  # fmt: skip
"""HYP-4, which looks at one forecast and no switch, is in `analysis.reports.hypotheses`."""
