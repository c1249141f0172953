"""A synthetic market of seconds, small and with a signal that can be learned."""

from __future__ import annotations

from trainables.data.config import DataConfig, FoldsConfig, SyntheticConfig

FOLDS = {"unit": "days", "train_months": 1, "validation_months": 1, "test_months": 1}


def section(session: str = "rth", n_sessions: int = 4, **settings):
    made = {"planted_ic": 0.15, "planted_horizon": 60, "planted_persistence": 0.9, **settings}
    return DataConfig(
        source="synthetic",
        session=session,
        synthetic=SyntheticConfig(bars="seconds", n_sessions=n_sessions, price=5000.0, **made),
    )


def folds() -> FoldsConfig:
    return FoldsConfig(**FOLDS)
