"""What the documents claim of switches of their models, as data: HYP-1 to HYP-8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from analysis.measures.effects import Kind

Rows = Literal["all", "unquiet", "open", "close", "friday"]
LARGEST = "largest"
"""In `Claim.base`: the largest value of the run, such as the longest window."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a document expects of a switch: a row of the table below, and so without the names of its fields.

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
    family: str = "grok"


UNQUIET: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("instance normalisation makes", ("use_in",)),
    ("the cyclic embedding makes", ("use_pe",)),
    ("both together make", ("use_in", "use_pe")),
)
"""What HYP-1 credits with a lower CRPS in unquiet times, and its switches."""

CLAIMS: tuple[Claim, ...] = (
    *(
        Claim(
            "HYP-1", f"{words} CRPS in unquiet times 20 % lower", dict.fromkeys(switches, True),
            dict.fromkeys(switches, False), "crps", "reduction", 0.20, rows="unquiet",
        )
        for words, switches in UNQUIET
    ),
    *(
        Claim(
            "HYP-2", f"the longest window against {bars} bars adds 0.05 of IC at {horizon}",
            {"window_bars": LARGEST}, {"window_bars": bars}, "ic", "difference", 0.05, horizon=horizon,
        )
        for bars in (32, 64, 390, 1380)
        for horizon in ("120m", "240m")
    ),
    Claim(
        "HYP-3", "without attention over variables IC drops by 15 %",
        {"variable_attention": True}, {"variable_attention": False}, "ic", "loss_of_gain", 0.15,
    ),
    *(
        Claim(
            "HYP-5", f"the cyclic embedding adds 0.03 of IC ({rows})",
            {"use_pe": True}, {"use_pe": False}, "ic", "difference", 0.03, rows=rows,
        )
        for rows in ("open", "close", "friday")
    ),
    *(
        Claim(
            "HYP-6", f"no patches against patches of {bars} make IC at {horizon} 10 % higher",
            {"patch": "none"}, {"patch": bars}, "ic", "gain", 0.10, horizon=horizon,
        )
        for bars in (8, 16)
        for horizon in ("5m", "15m")
    ),
    Claim(
        "HYP-7", "the lite gate cuts the variance of gradients by 40 %",
        {"lgu": True}, {"lgu": False}, "grad_norm_variance", "reduction", 0.40,
    ),
    Claim(
        "HYP-7", "the chain of horizons makes tail accuracy 20 % higher",
        {"heads": "autoregressive"}, {"heads": "independent"}, "tail_accuracy", "gain", 0.20,
    ),
    Claim(
        "HYP-7", "a calm beginning makes training steadier",
        {"lowvol_curriculum": True}, {"lowvol_curriculum": False}, "grad_norm_variance", "reduction", 0.0,
    ),
    Claim(
        "HYP-8", "the composite loss makes the Sharpe ratio of the policy 15 % higher",
        {"loss": "composite"}, {"loss": "base"}, "policy_sharpe", "gain", 0.15, family="condor",
    ),
    Claim(
        "HYP-8", "attention gated by volatility makes regime accuracy 20 % higher",
        {"vol_gated_attn": True}, {"vol_gated_attn": False}, "regime_accuracy", "gain", 0.20, family="condor",
    ),
    Claim(
        "HYP-8", "routing to the best expert loses nothing against all of them",
        {"moe": "topk"}, {"moe": "soft"}, "loss", "reduction", 0.0, family="condor",
    ),
    Claim(
        "HYP-8", "manifold features lower the loss in every regime",
        {"feature_schema": 32}, {"feature_schema": 24}, "loss", "reduction", 0.0, family="condor",
    ),
    Claim(
        "HYP-8", "the topological feature tells cycles from trends: a lower loss",
        {"tda": True}, {"tda": False}, "loss", "reduction", 0.0, family="condor",
    ),
)  # fmt: skip
"""HYP-4, which looks at one forecast and no switch, is in `analysis.reports.hypotheses`."""
