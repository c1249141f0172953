"""The rule language of the condor primitives: formulas over bars that cannot see the future.

A formula is an arithmetic expression: numbers, `+ - * / **`, the names below, and calls of the functions below; nothing
else is read. `/` gives 0 where the divisor is degenerate; `ratio(a, b, neutral)` gives another value there. Windows and
lags stay inside a run (see `bars`); only the functions `*_across_sessions` look over the start of a session.

Every name and function also tells how many bars it needs, so the look-back of a formula follows from its text.
"""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from trainables.features import bars as kit
from trainables.features import manifold, topology
from trainables.features.bars import Bars
from trainables.features.indicators import DEGENERATE, ratio
from trainables.features.rolling import (
    Float,
    lagged,
    over_finite,
    price_channel,
    recursive_average,
    rolling_mean,
    rolling_std,
)
from trainables.features.settings import FeatureSettings

Lookback = Callable[[FeatureSettings, int], int]
"""Bars needed, given the settings and the bars per session."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A name that formulas may use: its values, and the bars that it needs."""

    values: Callable[[Bars], Float]
    lookback: Lookback = lambda settings, per_session: 1


@dataclass(frozen=True, slots=True)
class Function:
    """A function that formulas may call as f(series, ..., number, ...).

    Attributes:
        n_series: Arguments that are formulas.
        n_numbers: Arguments that are numbers: literals or names of NUMBERS.
        apply: Called as apply(bars, *series, *numbers).
        extra: Bars needed beyond those of the series, given the numbers.
    """

    n_series: int
    n_numbers: int
    apply: Callable[..., Float]
    extra: Callable[..., int] = lambda *numbers: 0


def _field(name: str) -> Variable:
    return Variable(lambda bars: getattr(bars.market, name))


def _bollinger_lookback(s: FeatureSettings, per_session: int) -> int:
    return s.indicators.bollinger_n


VARIABLES: Mapping[str, Variable] = {
    **{name: _field(name) for name in ("open", "high", "low", "close", "volume", "iv", "spread_ratio")},
    **{name: _field(name) for name in ("strike", "delta", "gamma", "vega", "theta")},
    "ivr": _field("iv_rank"),
    "log_return": Variable(kit.log_return, lambda s, per_session: 2),
    "rsi": Variable(kit.rsi, lambda s, per_session: s.indicators.rsi_n + 1),
    "atr": Variable(kit.atr, lambda s, per_session: s.indicators.atr_n + 1),
    "adx": Variable(lambda bars: kit.directional_index(bars)[2], lambda s, per_session: 2 * s.indicators.adx_n),
    "stoch_k": Variable(kit.stochastic_k, lambda s, per_session: s.indicators.stochastic_n),
    "bb_lower": Variable(lambda bars: kit.bollinger(bars)[0], _bollinger_lookback),
    "bb_mid": Variable(lambda bars: kit.bollinger(bars)[1], _bollinger_lookback),
    "bb_upper": Variable(lambda bars: kit.bollinger(bars)[2], _bollinger_lookback),
    "sma": Variable(lambda bars: kit.bollinger(bars)[1], _bollinger_lookback),
    "psar": Variable(kit.psar, lambda s, per_session: 2),
    "macd_line": Variable(lambda bars: kit.macd(bars)[0], lambda s, per_session: s.indicators.macd_slow_n),
    "macd_signal_line": Variable(
        lambda bars: kit.macd(bars)[1], lambda s, per_session: s.indicators.macd_slow_n + s.indicators.macd_signal_n - 1
    ),
    "vwap": Variable(kit.session_vwap),
    "realised_volatility": Variable(kit.realised_volatility, lambda s, per_session: 1 + kit.realised_n(s, per_session)),
    "minutes_since_open": Variable(kit.minutes_since_open),
    "curvature_proxy": Variable(manifold.kappa_proxy, lambda s, per_session: manifold.proxy_lookback(s)),
    "persistence": Variable(
        lambda bars: manifold.hurst(bars) if bars.settings.beta1_source == "hurst" else topology.persistence(bars),
        lambda s, per_session: s.hurst_window if s.beta1_source == "hurst" else s.tda_window,
    ),
    "tda": Variable(topology.persistence, lambda s, per_session: s.tda_window if s.tda else 1),
}
"""Series that a formula may name."""

NUMBERS: Mapping[str, Lookback] = {
    "momentum_n": lambda s, per_session: s.momentum_n,
    "vol_regime_n": lambda s, per_session: s.vol_regime_n * (per_session if s.vol_regime_unit == "sessions" else 1),
}
"""Numbers that a formula may name."""

FUNCTIONS: Mapping[str, Function] = {
    "abs": Function(1, 0, lambda bars, x: np.abs(x)),
    "sign": Function(1, 0, lambda bars, x: np.sign(x)),
    "log": Function(1, 0, lambda bars, x: np.log(np.where(x > 0, x, np.nan))),
    "sqrt": Function(1, 0, lambda bars, x: np.sqrt(np.where(x >= 0, x, np.nan))),
    "clip": Function(1, 2, lambda bars, x, low, high: np.clip(x, low, high)),
    "ratio": Function(2, 1, lambda bars, x, y, neutral: ratio(x, y, neutral)),
    "lag": Function(1, 1, lambda bars, x, n: lagged(x, bars.first, n), lambda n: n),
    "mean": Function(1, 1, lambda bars, x, n: rolling_mean(x, bars.first, n), lambda n: n - 1),
    "std": Function(1, 1, lambda bars, x, n: rolling_std(x, bars.first, n), lambda n: n - 1),
    "ema": Function(1, 1, lambda bars, x, n: recursive_average(x, bars.first, n, 2 / (n + 1)), lambda n: n - 1),
    "highest": Function(1, 1, lambda bars, x, n: price_channel(x, x, bars.first, n)[0], lambda n: n - 1),
    "lowest": Function(1, 1, lambda bars, x, n: price_channel(x, x, bars.first, n)[1], lambda n: n - 1),
    "lag_across_sessions": Function(1, 1, lambda bars, x, n: lagged(x, bars.segment_first, n), lambda n: n),
    "mean_across_sessions": Function(
        1, 1, lambda bars, x, n: over_finite(rolling_mean, x, bars.segment_first, n), lambda n: n - 1
    ),
}
"""Functions that a formula may call. None can be given a window below 1 or a lag below 0."""


def _divide(x: Any, y: Any) -> Any:
    """Return x/y, 0 where y is degenerate; a number stays a number, so that no array is made of it."""
    if np.ndim(y) == 0 and abs(y) >= DEGENERATE:
        return x / y
    return ratio(np.asarray(x, dtype=float), np.asarray(y, dtype=float), 0.0)


OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
    ast.Pow: lambda x, y: np.float_power(x, y),
}


def parse(formula: str, *, where: str) -> ast.expr:
    """Read a formula and check every name, function and argument in it.

    Args:
        formula: Text in the rule language.
        where: File and rule, for error messages.

    Returns:
        The expression, fit for `evaluate` and `lookback`.

    Raises:
        ValueError: Something that is not of the language, with the nearest known name.
    """
    try:
        tree = ast.parse(formula, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{where}: expected a formula, found {formula!r} ({error.msg}); correct it") from None
    _check(tree, where)
    return tree


def _check(node: ast.expr, where: str) -> None:
    if _is_number(node):
        return
    match node:
        case ast.Name(id=name):
            _known(name, [*VARIABLES, *NUMBERS], "name", where)
        case ast.BinOp(left=left, right=right, op=op) if type(op) in OPERATORS:
            _check(left, where)
            _check(right, where)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _check(operand, where)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            _known(name, FUNCTIONS, "function", where)
            _check_arguments(name, arguments, where)
        case _:
            raise ValueError(
                f"{where}: expected numbers, names, + - * / ** and calls, found {ast.unparse(node)!r}; rewrite it"
            )


def _check_arguments(name: str, arguments: list[ast.expr], where: str) -> None:
    function = FUNCTIONS[name]
    expected = function.n_series + function.n_numbers
    if len(arguments) != expected:
        raise ValueError(f"{where}: {name} takes {expected} arguments, found {len(arguments)}; see the rule language")
    for argument in arguments[: function.n_series]:
        _check(argument, where)
    for argument in arguments[function.n_series :]:
        if not _is_number(argument) and not (isinstance(argument, ast.Name) and argument.id in NUMBERS):
            raise ValueError(
                f"{where}: {name} expected a number or one of {', '.join(NUMBERS)}, found {ast.unparse(argument)!r}"
            )
    if function.extra(*[1] * function.n_numbers) != function.extra(*[2] * function.n_numbers):
        n = arguments[-1]
        least = 0 if name.startswith("lag") else 1
        if _is_number(n) and (not isinstance(ast.literal_eval(n), int) or ast.literal_eval(n) < least):
            raise ValueError(
                f"{where}: {name} expected a whole number of bars, {least} or more, found {ast.unparse(n)}; "
                "anything below would read the future"
            )


def _known(name: str, known: Any, what: str, where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=3) or sorted(known)
        raise ValueError(f"{where}: unknown {what} {name!r}; nearest: {', '.join(near)}")


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _number(node: ast.expr, settings: FeatureSettings, per_session: int) -> float:
    match node:
        case ast.Name(id=name):
            return NUMBERS[name](settings, per_session)
        case ast.UnaryOp(operand=ast.Constant(value=value)):
            return -value  # type: ignore[operator,return-value]
        case ast.Constant(value=value):
            return value  # type: ignore[return-value]
    raise AssertionError(f"{ast.unparse(node)!r} was not checked")


def evaluate(node: ast.expr, bars: Bars) -> Float:
    """Return the values of a parsed formula, (n_bars,) float64; a call that occurs twice in it is computed once."""
    return _Evaluation(bars).series(node)


_text = lru_cache(maxsize=4096)(ast.unparse)
"""Text of a call, the same for equal calls; kept, because it takes longer than computing a short block."""


class _Evaluation:
    """The values of one formula; its calls are remembered only as long as it lives, to hold little memory."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.calls: dict[str, Float] = {}

    def series(self, node: ast.expr) -> Float:
        values = np.asarray(self.value(node), dtype=np.float64)
        return values if values.ndim else np.full(len(self.bars), values)

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Name(id=name) if name in VARIABLES:
                return VARIABLES[name].values(self.bars)
            case ast.BinOp(left=left, right=right, op=op):
                return OPERATORS[type(op)](self.value(left), self.value(right))
            case ast.UnaryOp(operand=operand):
                return -self.value(operand)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                text = _text(node)
                if text not in self.calls:
                    self.calls[text] = self.call(FUNCTIONS[name], arguments)
                return self.calls[text]
        return self.number(node)

    def call(self, function: Function, arguments: list[ast.expr]) -> Float:
        series = [self.series(a) for a in arguments[: function.n_series]]
        return function.apply(self.bars, *series, *map(self.number, arguments[function.n_series :]))

    def number(self, node: ast.expr) -> float:
        return _number(node, self.bars.settings, self.bars.market.bars_per_session)


def lookback(node: ast.expr, settings: FeatureSettings, per_session: int) -> int:
    """Return the bars that a parsed formula needs before its first value, the current one included."""
    match node:
        case ast.Name(id=name) if name in VARIABLES:
            return VARIABLES[name].lookback(settings, per_session)
        case ast.BinOp(left=left, right=right):
            return max(lookback(left, settings, per_session), lookback(right, settings, per_session))
        case ast.UnaryOp(operand=operand):
            return lookback(operand, settings, per_session)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            function = FUNCTIONS[name]
            numbers = [_number(a, settings, per_session) for a in arguments[function.n_series :]]
            series = [lookback(a, settings, per_session) for a in arguments[: function.n_series]]
            return max(series) + int(function.extra(*numbers))
    return 1
