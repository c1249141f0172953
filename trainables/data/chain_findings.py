"""What there is to say about an option chain: quotes, Greeks and their units, columns that look filled in (DATA-31)."""

from __future__ import annotations

import numpy as np

from trainables.data.config import ChainConfig
from trainables.data.findings import Finding, Section, at_rows, constant_columns, placeholder_columns, stamp
from trainables.data.greek_units import detect_units, with_spot
from trainables.data.options import NUMBERS, REASONS, Chain, count_reasons, quote_reasons, read_chain
from trainables.data.zones import local_day
from trainables.errors import DataError

IV_RANGE = (0.02, 3.0)
"""Volatilities outside are rarely a market's: of options about to expire, or filled in."""


def check_chain(settings: ChainConfig, timezone: str | None, rate_ann: float, title: str) -> Section:
    """Return facts and findings of one underlying's rows.

    Raises:
        DataError: The rows cannot be read.
    """
    raw = read_chain(settings, timezone)
    chain, n_inferred = with_spot(raw, rate_ann)
    times = chain.timestamp
    instants = np.unique(times)
    is_daily = len(instants) == len(np.unique(local_day(instants)))
    facts = {
        "rows": f"{len(chain):,}",
        "span": f"{stamp(times[0])} to {stamp(times[-1])}, {len(instants):,} instants",
        "contracts": f"{len(np.unique(chain.expiry))} expiries, {len(np.unique(chain.strike))} strikes",
    }
    reasons = quote_reasons(chain, rate_ann, settings.bounds_tolerance_frac)
    facts["good quotes"] = f"{(reasons == 0).mean():.1%}"
    findings = [*_quotes(raw), *_masked(chain, reasons), *_volatilities(chain)]
    try:
        facts["Greek units"] = str(detect_units(chain, rate_ann, title))
    except DataError as problem:
        findings.append(Finding(severity="warning", what=str(problem)))
    if n_inferred:
        what = "rows without the underlying's price: inferred from delta and iv"
        findings.append(Finding(severity="warning", what=what, count=n_inferred))
    if is_daily and np.isfinite(chain.iv).any():
        what = "end of day: iv and Greeks are known after the close only; set data.chain.lag_s"
        findings.append(Finding(severity="note", what=what))
    columns = {name: getattr(raw, name) for name in NUMBERS}
    findings += constant_columns({name: values for name, values in columns.items() if name != "underlying_price"})
    at_first = times == times[0]
    findings += placeholder_columns(
        {name: values[at_first] for name, values in columns.items()} | {"strike": chain.strike[at_first]}
    )
    return Section(title=title, facts=facts, findings=tuple(findings))


def _quotes(chain: Chain) -> list[Finding]:
    """Count each fault by itself; the mask counts the first one of a row."""
    rows = (
        ("bid is missing", np.isnan(chain.bid)),
        ("ask is missing", np.isnan(chain.ask)),
        ("bid is 0", chain.bid == 0),
        ("bid above ask", chain.bid > chain.ask),
    )
    return [
        found
        for what, bad in rows
        for found in at_rows("warning", f"{what} in {bad.mean():.1%} of rows", bad, chain.timestamp)
    ]


def _masked(chain: Chain, reasons) -> list[Finding]:  # type: ignore[no-untyped-def]
    return [
        found
        for name in count_reasons(reasons)
        for found in at_rows("warning", f"masked: {name}", reasons == REASONS.index(name), chain.timestamp)
    ]


def _volatilities(chain: Chain) -> list[Finding]:
    low, high = IV_RANGE
    has_none = np.isnan(chain.iv)
    return [
        *at_rows("warning", f"iv above {high:g}", chain.iv > high, chain.timestamp),
        *at_rows("warning", f"iv below {low:g}", chain.iv < low, chain.timestamp),
        *([] if has_none.all() else at_rows("warning", "iv is missing", has_none, chain.timestamp)),
    ]
