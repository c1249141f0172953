"""The contracts nearest to the money at each bar: one pass over the quotes of a chain, in time order (DATA-14).

At each bar the quotes that are known and not too old are compared, the newest of each contract. Of the expiries that
are quoted the one nearest to the wanted days is taken, of it so many strikes of each type.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trainables.data.asof import NO_ROW
from trainables.data.chain import PUT
from trainables.data.config import DataConfig
from trainables.data.options import Chain
from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND

Float = NDArray[np.float64]
Int = NDArray[np.int64]


class NearestContracts:
    """The pass over a chain: bars may come block by block, in time order; the newest quotes are kept between blocks.

    Args:
        chain: The quotes, in time order.
        number: (n_quotes,) from 0: which contract each quote is of.
        is_usable: (n_quotes,) quotes that are looked at.
        data: Days to expiry, age and lag.
        n_strikes: Most contracts of each type at a bar.
    """

    def __init__(
        self, chain: Chain, number: NDArray[np.integer], is_usable: NDArray[np.bool_], data: DataConfig, n_strikes: int
    ) -> None:
        settings = data.chain
        assert settings is not None
        n_contracts = int(number.max()) + 1 if len(number) else 0
        self._quotes = (chain.timestamp, number, is_usable, chain.expiry, chain.strike, chain.is_call)
        self._lag_ns = round(settings.lag_s * NS_PER_SECOND)
        self._wanted_ns = round(data.option_days * NS_PER_DAY)
        self._max_age_ns = round(settings.max_age_minutes * 60 * NS_PER_SECOND)
        self._n_strikes = n_strikes
        self._newest = np.full(n_contracts, NO_ROW)
        self._listed, self._is_listed = np.zeros(n_contracts, dtype=np.int64), np.zeros(n_contracts, dtype=np.bool_)
        self._progress = np.zeros(2, dtype=np.int64)

    def at(self, known_time: Int, close: Float) -> tuple[Int, Int, NDArray[np.bool_]]:
        """Return position of the bar, row of the chain and whether it is the bar's put nearest to the money.

        Args:
            known_time: (n_bars,) ns UTC, increasing, after those of earlier calls: the moments of decision.
            close: (n_bars,) prices known then, in the unit of the strikes.

        Returns:
            Three arrays (n_rows,), by bar and within it by number of the contract.
        """
        found: tuple[Int, Int, NDArray[np.bool_]] = _nearest(
            known_time, close, *self._quotes, self._lag_ns, self._wanted_ns, self._max_age_ns, self._n_strikes,
            self._newest, self._listed, self._is_listed, self._progress,
        )  # fmt: skip
        return found


@njit(cache=True, nogil=True)
def _nearest(  # type: ignore[no-untyped-def]
    known_time, close, stamp, number, is_usable, expiry, strike, is_call, lag_ns, wanted_ns, max_age_ns, n_strikes,
    newest, listed, is_listed, progress,
):  # fmt: skip
    """Go over bars and quotes; the last four arguments are carried on. Contracts without a fresh quote are dropped."""
    bars = np.empty(len(known_time) * 2 * n_strikes, dtype=np.int64)
    rows, is_reference = np.empty_like(bars), np.zeros(len(bars), dtype=np.bool_)
    n_listed, quote, n_rows = progress[0], progress[1], 0
    for bar in range(len(known_time)):
        now = known_time[bar]
        while quote < len(stamp) and stamp[quote] + lag_ns <= now:
            code = number[quote]
            if is_usable[quote]:
                newest[code] = quote
                if not is_listed[code]:
                    is_listed[code] = True
                    listed[n_listed] = code
                    n_listed += 1
            quote += 1
        nearest_days, i = np.int64(-1), 0
        while i < n_listed:
            row = newest[listed[i]]
            if now - stamp[row] > max_age_ns or expiry[row] <= now:
                is_listed[listed[i]] = False
                n_listed -= 1
                listed[i] = listed[n_listed]
                continue
            days = abs(expiry[row] - now - wanted_ns)
            nearest_days = days if nearest_days < 0 else min(days, nearest_days)
            i += 1
        first = n_rows
        for side in (-1.0, 1.0):
            found = np.array(
                [
                    newest[code]
                    for code in listed[:n_listed]
                    if is_call[newest[code]] == side and abs(expiry[newest[code]] - now - wanted_ns) == nearest_days
                ],
                dtype=np.int64,
            )
            found = found[np.argsort(strike[found], kind="mergesort")]
            found = found[np.argsort(np.abs(strike[found] - close[bar]), kind="mergesort")[:n_strikes]]
            if side == PUT and len(found):
                is_reference[n_rows] = True
            rows[n_rows : n_rows + len(found)] = found
            n_rows += len(found)
        bars[first:n_rows] = bar
        by_contract = first + np.argsort(number[rows[first:n_rows]], kind="mergesort")
        rows[first:n_rows], is_reference[first:n_rows] = rows[by_contract], is_reference[by_contract]
    progress[0], progress[1] = n_listed, quote
    return bars[:n_rows], rows[:n_rows], is_reference[:n_rows]
