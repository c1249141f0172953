"""For tests of a family on a market of their own."""

import pytest

from trainables.data import shared


@pytest.fixture
def shared_market(monkeypatch, market):
    """Give whoever asks for a market the fixture `market` of the test's module."""
    monkeypatch.setattr(shared, "market", lambda data, folds: market)
