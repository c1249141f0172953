"""The condor family: condor features, hindsight labels, LOSS-4 and its kin, scores on a fixed reference (chapter 3.2).

What is scored must be the same for all trials of a search (SEARCH-14). So a row counts only where the widest schema and
the slowest settings within the search's reach have values, and its label covers whatever any of its trials predicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.measures import baselines
from trainables.condor.config import HORIZON_SESSIONS, POLICY_RANGES, REGIMES, CondorConfig
from trainables.condor.contract_rows import contract_features, contract_rows
from trainables.condor.labels import LabelSettings, condor_labels, regime_of
from trainables.condor.losses import (
    EXTRA_TARGETS,
    Targets,
    condor_return,
    gaussian_crps,
    head_losses,
    policy_errors,
    reference_loss,
    regime_accuracy,
    target_names,
    training_loss,
)
from trainables.condor.model import CondorModel, Outputs
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.dataset import NO_LABEL, Dataset
from trainables.data.market import Market
from trainables.data.shared import opened
from trainables.data.store import FeatureStore, content_key
from trainables.features.columns import columns_of
from trainables.features.registry import compute, fingerprint, lookback
from trainables.features.settings import FeatureSettings
from trainables.training.family import Batch, Family, Score

Reach = Mapping[str, tuple[Any, ...]]

FEATURE_GENES = {
    24: (),
    32: ("ewma_alpha", "energy_alpha", "rsi_beta", "adx_gamma", "curvature"),
    52: ("ewma_alpha", "energy_alpha", "rsi_beta", "adx_gamma", "curvature", "momentum_n", "tda"),
}
"""Genes that each schema depends on (chapter 12.3); trials that differ only in others share their features."""

TDA_GENES = ("tda_dim", "tda_delay", "tda_window")
"""Genes that matter where `tda` is on."""

VERSION = 2
"""Part of the store's key; raised when labels or the rule of usable rows change."""

NS_PER_DAY = 86_400 * 10**9
NAIVE_SPAN_SESSIONS = 32
"""Memory of the naive volatility, sessions: the weight 0.06 of RiskMetrics (1996)."""
DAYS_PER_YEAR = 365.0
"""Of the expected move (C-36)."""

_NATIVE = CondorConfig(target_scaling="none_documented")


class CondorFamily(Family):
    """See `trainables.training.family.Family`."""

    name = "condor"

    def dataset(self, config: CondorConfig, data: DataConfig, folds: FoldsConfig, reach: Reach, store: Path) -> Dataset:
        """Return features of the config's schema and the targets of all heads within the reach.

        Raises:
            ValueError: The reach lets something vary that defines the task itself.
        """
        _check_task(reach)
        market, entries = opened(data, folds, store)
        rows_key, labels_key, names = _rows_key(config, reach, market), *_labels_key(config, reach, data, market)
        schema, settings = f"condor{config.feature_schema}", feature_settings(config)
        axis = config.sequence_axis
        features_key = content_key(rows=rows_key, features=fingerprint(schema, settings), axis=axis, version=VERSION)
        labels = entries.get(labels_key, lambda: _labels(market, label_settings(config, reach, data), names))
        known = entries.get(rows_key, lambda: {"rows": _known_rows(config, reach, market)})["rows"]
        rows = _contract_rows(config, data, market, entries)

        def build() -> dict[str, NDArray[Any]]:
            features = _features(schema, settings, market, known)
            return {
                "features": features if rows is None else contract_features(schema, settings, market, features, rows)
            }

        seen = CondorConfig(feature_schema=config.feature_schema).seen_features()
        columns = columns_of(schema, seen, settings, market.bars_per_session)
        features = entries.get(features_key, build, {"columns": columns})["features"]
        dataset = Dataset(
            known_time=market.known_time,
            features=features,
            feature_names=seen,
            targets=labels["targets"],
            target_names=names,
            label_end=labels["label_end"],
            usable=known & (labels["label_end"] != NO_LABEL),
            segment=market.segment,
            marks=market.marks,
            snapshot=content_key(features=features_key, labels=labels_key),
        )
        return dataset if rows is None else _over_contracts(dataset, rows)

    def build_model(self, config: CondorConfig, feature_names: tuple[str, ...]) -> nn.Module:
        return CondorModel(config, feature_names)

    def statistics(self, config: CondorConfig, targets_train: NDArray[np.float32]) -> CondorConfig:
        """Return the config with mean and deviation of the training returns: what is naive to say (ANALYSIS-4)."""
        returns = Targets.split(config, torch.from_numpy(targets_train)).returns.double()
        moments = zip(returns.mean(0).tolist(), returns.std(0, correction=0).tolist(), strict=True)
        return config.model_copy(update={"target_moments": tuple(moments)})

    def loss(self, config: CondorConfig, outputs: Outputs, batch: Batch) -> Tensor:
        return training_loss(config, outputs, batch.targets)

    def reference_loss(self, config: CondorConfig, outputs: Outputs, batch: Batch) -> Tensor:
        return reference_loss(outputs, Targets.split(config, batch.targets))

    def head_losses(self, config: CondorConfig, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        return head_losses(config, outputs, Targets.split(config, batch.targets))

    def score(self, config: CondorConfig, outputs: Outputs, targets: Tensor) -> Score:
        """Score every row; see `Score`.

        `crps` is the plain mean over the four horizons of the Gaussian score in log returns, in which long horizons,
        whose returns are larger, weigh more: the standard deviation of the training fold is not known here.
        """
        known = Targets.split(config, targets)
        horizons = [f"{h}d" for h in HORIZON_SESSIONS]
        crps_BH = gaussian_crps(outputs["mu"], outputs["sigma"], known.returns)
        columns = {name: outputs["policy"][:, i] for i, (name, _, _) in enumerate(POLICY_RANGES)}
        columns |= {f"p_{regime}": p for regime, p in zip(REGIMES, outputs["regime_logits"].softmax(-1).T, strict=True)}
        columns |= {f"p_up_{h}": p for h, p in zip(horizons, outputs["p_up_logits"].sigmoid().T, strict=True)}
        outcomes = {"regime": known.regime, "roi_realised": known.policy[:, 5]}
        return Score(
            loss=_array(reference_loss(outputs, known)),
            crps=_array(crps_BH.mean(-1)),
            forecasts={h: (_array(outputs["mu"][:, i]), _array(known.returns[:, i])) for i, h in enumerate(horizons)},
            scales={h: _array(outputs["sigma"][:, i]) for i, h in enumerate(horizons)},
            columns={name: _array(column) for name, column in columns.items()},
            outcomes={
                **{name: _array(column) for name, column in outcomes.items()},
                **({} if config.target_moments is None else {"baseline_crps": _naive_crps(config, known)}),
            },
            metrics=_metrics(config, outputs, known),
        )


FAMILY = CondorFamily()


def feature_settings(config: CondorConfig) -> FeatureSettings:
    """Return the settings of the features, with those genes only that the config's schema depends on."""
    genes = FEATURE_GENES[config.feature_schema]
    genes += TDA_GENES if config.tda and "tda" in genes else ()
    return FeatureSettings(**{name: getattr(config, name) for name in genes})


def label_settings(config: CondorConfig, reach: Reach, data: DataConfig) -> LabelSettings:
    """Return how targets are made: with a trajectory as long as any trial of the search predicts."""
    has_path = any(_values("trajectory", config, reach))
    return LabelSettings(
        label_mode=config.label_mode,
        regime_label_horizon=config.regime_label_horizon,
        strike_step=data.strike_step,
        trajectory_sessions=max(_values("trajectory_sessions", config, reach)) if has_path else 0,
    )


def _check_task(reach: Reach) -> None:
    """Refuse a search over what is to be predicted: its trials could not be compared."""
    for name in ("label_mode", "regime_label_horizon", "sequence_axis"):
        if len(set(reach.get(name, ()))) > 1:
            raise ValueError(f"{name}: expected one value, found {len(set(reach[name]))} in the space; fix it")


def _values(name: str, config: CondorConfig, reach: Reach) -> tuple[Any, ...]:
    return (*reach.get(name, ()), getattr(config, name))


def _rows_key(config: CondorConfig, reach: Reach, market: Market) -> str:
    schema, slowest = _slowest(config, reach)
    return content_key(kind="rows", market=market.snapshot, features=fingerprint(schema, slowest), version=VERSION)


def _labels_key(config: CondorConfig, reach: Reach, data: DataConfig, market: Market) -> tuple[str, tuple[str, ...]]:
    settings = label_settings(config, reach, data)
    key = content_key(kind="labels", market=market.snapshot, settings=settings.model_dump(mode="json"), version=VERSION)
    return key, target_names(settings.trajectory_sessions)


def _slowest(config: CondorConfig, reach: Reach) -> tuple[str, FeatureSettings]:
    """Return the widest schema within reach, with the settings that need the longest history."""
    widest = max(_values("feature_schema", config, reach))
    longest: dict[str, Any] = {}
    if widest == 52:
        longest["momentum_n"] = max(_values("momentum_n", config, reach))
        longest["tda"] = any(_values("tda", config, reach))
    if longest.get("tda"):
        longest |= {name: max(_values(name, config, reach)) for name in TDA_GENES}
    return f"condor{widest}", FeatureSettings(**longest)


def _known_rows(config: CondorConfig, reach: Reach, market: Market) -> NDArray[np.bool_]:
    """Return where every feature within reach has a value, (n_rows,)."""
    schema, slowest = _slowest(config, reach)
    quick = slowest.model_copy(update={"tda": False})
    complete = np.isfinite(compute(schema, market, quick)[0]).all(axis=1)
    starts = np.flatnonzero(np.append(True, np.diff(market.segment) != 0))
    run = np.repeat(starts, np.diff(np.append(starts, len(market))))
    needed = lookback(schema, slowest, market.bars_per_session)
    return complete & (np.arange(len(market)) - run + 1 >= needed)


def _features(schema: str, settings: FeatureSettings, market: Market, known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the features, NaN in rows that another schema within reach lacks: windows then start alike for all."""
    features, _ = compute(schema, market, settings)
    lacking = known & ~np.isfinite(features).all(axis=1)
    if lacking.any():
        raise ValueError(
            f"features: expected values in all {int(known.sum())} rows that the search scores, found {schema} without "
            f"one in {int(lacking.sum())}; the rule of usable rows is wrong"
        )
    features[~known] = np.nan
    return features


def _contract_rows(
    config: CondorConfig, data: DataConfig, market: Market, entries: FeatureStore
) -> Mapping[str, NDArray[Any]] | None:
    """Return the rows of the chain's contracts, or None where a row is a bar (DATA-19)."""
    axis = config.sequence_axis
    if axis == "time":
        return None
    key = content_key(kind="contract rows", market=market.snapshot, axis=axis, version=VERSION)
    return entries.get(key, lambda: contract_rows(market, data, axis))


def _over_contracts(bars: Dataset, rows: Mapping[str, NDArray[Any]]) -> Dataset:
    """Return the data set of the rows, whose features are there already; each has the targets of its bar.

    Of each moment the row of the reference option is scored: trials are compared on moments, not on strikes.
    """
    bar, is_known = rows["bar"], np.isfinite(np.asarray(bars.features)).all(axis=1)
    return replace(
        bars,
        known_time=bars.known_time[bar],
        targets=bars.targets[bar],
        label_end=bars.label_end[bar],
        usable=bars.usable[bar] & is_known,
        segment=rows["segment"],
        scored=rows["is_reference"],
        marks={
            **bars.marks,
            "rows": f"{len(bar)} of {len(np.unique(rows['contract']))} contracts over {len(bars)} bars",
        },
    )


def _labels(market: Market, settings: LabelSettings, expected: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Return targets in the order of `target_names`, and label ends."""
    targets, names, label_end = condor_labels(market, settings)
    policy_and_returns = len(POLICY_RANGES) + 1 + len(HORIZON_SESSIONS)
    names = (*names[:policy_and_returns], *EXTRA_TARGETS, *names[policy_and_returns:])
    if names != expected:
        raise ValueError(f"targets: expected columns {', '.join(expected)}, found {', '.join(names)}")
    days = targets[:, 3].astype(np.float64)
    extra = np.stack(
        [regime_of(market.iv_rank, settings), *_moves(market, days), _session_volatility(market)], axis=1
    ).astype(np.float32)
    columns = np.concatenate([targets[:, :policy_and_returns], extra, targets[:, policy_and_returns:]], axis=1)
    has_label = np.isfinite(columns).all(axis=1)
    columns[~has_label] = np.nan
    return {"targets": columns, "label_end": np.where(has_label, label_end, NO_LABEL)}


def _moves(market: Market, days: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the expected move over so many calendar days, in price units, and the realised one over it (C-36).

    The realised move ends at the last bar known by then; NaN where `days` is, which is where the label is missing.
    """
    known = np.isfinite(days)
    horizon = (np.where(known, days, 0.0) * NS_PER_DAY).astype(np.int64)
    last = np.searchsorted(market.known_time, market.known_time + horizon, side="right") - 1
    expected = market.close * market.iv * np.sqrt(days / DAYS_PER_YEAR)
    return expected, np.where(known, market.close[last] - market.close, np.nan) / expected


def _session_volatility(market: Market) -> NDArray[np.float64]:
    """Return the EWMA deviation of log returns up to each bar, scaled to a session (RiskMetrics 1996)."""
    returns = np.diff(np.log(market.close), prepend=np.log(market.close[:1]))
    span = NAIVE_SPAN_SESSIONS * market.bars_per_session
    return baselines.ewma_scale(returns, span_rows=span) * np.sqrt(market.bars_per_session)


def _naive_crps(config: CondorConfig, known: Targets) -> NDArray[np.float32]:
    """Return the score of the better of two naive forecasts on these rows, which helps it, (n,) (ANALYSIS-4).

    One says the mean and the spread of the training rows, the other no mean and the moving spread of past returns.
    """
    mean, deviation = known.returns.new_tensor(config.target_moments).T
    root = known.returns.new_tensor(HORIZON_SESSIONS).sqrt()
    moving = (known.session_volatility[:, None] * root).clamp_min(1e-8)
    both = [
        gaussian_crps(torch.zeros_like(moving) + middle, spread, known.returns).mean(-1)
        for middle, spread in ((mean, torch.zeros_like(moving) + deviation), (torch.zeros_like(mean), moving))
    ]
    return _array(min(both, key=lambda score: float(score.mean())))


def _policy_sharpe(config: CondorConfig, policy: Tensor, known: Targets) -> float | None:
    """Return mean over deviation of the return of the predicted condors, entered at every row and held to expiry.

    They overlap: it compares trials on the same rows and is no Sharpe ratio of an account.
    """
    earned = condor_return(policy, known.move, known.sigma_atm, config.payoff_smoothing)
    earned = earned[torch.isfinite(earned)]
    spread = float(earned.std()) if len(earned) > 1 else 0.0
    return float(earned.mean()) / spread if spread > 0 else None


def _metrics(config: CondorConfig, outputs: Outputs, known: Targets) -> dict[str, float]:
    """Return regime accuracies (C-23, ANALYSIS-7), errors of the policy in native units (C-59), and what it earns."""
    error = policy_errors(_NATIVE, outputs["policy"], known.policy).abs().mean(0)
    earned = _policy_sharpe(config, outputs["policy"], known)
    return {
        "regime_accuracy": regime_accuracy(outputs["regime_logits"], known.regime),
        "regime_accuracy_now": regime_accuracy(outputs["regime_logits"], known.regime_now),
        **{f"mae_{name}": float(error[i]) for i, (name, _, _) in enumerate(POLICY_RANGES)},
        **({} if earned is None else {"policy_sharpe": earned}),
    }


def _array(values: Tensor) -> NDArray[np.float32]:
    return values.detach().to(torch.float32).numpy()
