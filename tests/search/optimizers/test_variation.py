from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, kstest

from search.optimizers.genome import Genome
from search.optimizers.variation import NEAR, adapted, crossover, mutate, tournament
from search.space import Choice, Float, Ordered, Space
from tests.search.toy_search import SPACE

MIXED = Space({"x": Float(low=0.0, high=1.0), "w": Ordered(choices=(1, 2, 3, 4)), "k": Choice(choices=tuple("abcde"))})


@pytest.mark.requirement("SEARCH-5")
def test_a_tournament_of_three_is_won_by_the_best_as_often_as_it_takes_part() -> None:
    winners = tournament(10, 4000, 3, np.random.default_rng(0))
    assert binomtest(int((winners == 0).sum()), 4000, 1 - 0.9**3).pvalue > 1e-3
    assert winners.max() <= 9


@pytest.mark.requirement("SEARCH-5")
def test_children_take_each_gene_from_either_parent_and_what_one_lacks_from_the_other() -> None:
    first, second = np.full((4000, 3), 0.25), np.full((4000, 3), 0.75)
    first[:, 1] = np.nan
    first[:, 2] = second[:, 2] = np.nan
    child = crossover(first, second, np.random.default_rng(0))
    assert binomtest(int((child[:, 0] == 0.25).sum()), 4000).pvalue > 1e-3
    assert (child[:, 1] == 0.75).all()
    assert np.isnan(child[:, 2]).all()


@pytest.mark.requirement("SEARCH-5")
def test_mutation_steps_by_kind() -> None:
    """A float moves by a normal step, an ordered value by at least one place, a choice is drawn anew."""
    genome, n = Genome(MIXED), 20_000
    rows = np.tile(genome.express(np.array([[0.5, 0.4, 0.5]])), (n, 1))
    child = mutate(rows, np.full(n, 0.05), genome, np.random.default_rng(0), rate=0.5)
    moved = child[child[:, 0] != 0.5, 0]
    assert kstest((moved - 0.5) / 0.05, "norm").pvalue > 1e-3
    places = np.floor(child[:, 1] * 4)
    stays = child[:, 1] == rows[:, 1]
    assert set(places[~stays]) == {0.0, 2.0}
    drawn = np.floor(child[child[:, 2] != rows[:, 2], 2] * 5).astype(int)
    assert chisquare(np.bincount(drawn)).pvalue > 1e-3
    assert (child != rows).any(axis=1).all()


@pytest.mark.requirement("SEARCH-5")
def test_children_stay_in_bounds_and_satisfy_conditions() -> None:
    genome, rng = Genome(SPACE), np.random.default_rng(0)
    rows = genome.express(rng.random((300, genome.n_genes)))
    for strength in (0.001, 0.3, 5.0):
        child = mutate(crossover(rows, rows[::-1], rng), np.full(300, strength), genome, rng, rate=0.3)
        for genes in genome.express(child)[::10]:
            assert SPACE.problems(genome.decode(genes)) == ()


def test_strengths_change_by_a_log_normal_factor_within_bounds() -> None:
    found = adapted(np.full(5000, 0.1), np.random.default_rng(0), rate=0.5, least=1e-9, most=1e9)
    assert kstest(np.log(found / 0.1) / 0.5, "norm").pvalue > 1e-3
    assert adapted(np.array([1e-6, 10.0]), np.random.default_rng(0), rate=0.5, least=0.01, most=0.5).tolist() == [
        0.01,
        0.5,
    ]


def test_a_fine_step_beyond_a_bound_stops_there_and_a_large_one_is_reflected() -> None:
    genome, rng = Genome(Space({"x": Float(low=0.0, high=1.0)})), np.random.default_rng(0)
    for start in (0.0, 1.0):
        genes = np.full((1000, 1), start)
        fine, large = (mutate(genes, np.full(1000, s), genome, rng, rate=1.0) for s in (NEAR / 2, NEAR * 2))
        assert 400 < np.count_nonzero(fine == start) < 600
        assert not np.any(large == start)
        assert ((fine >= 0) & (fine <= 1) & (large >= 0) & (large <= 1)).all()
