from __future__ import annotations

import numpy as np
import pytest

from search.optimizers.genome import Genome, key
from search.space import Choice, Fixed, Float, Int, Space
from tests.search.toy_search import ONE_POINT, SPACE

NESTED = Space(
    {
        "off": Fixed(value=False),
        "model": Choice(choices=("a", "b")),
        "layers": Int(low=1, high=300, log=True, when={"model": "b"}),
        "tail": Float(low=0.0, high=1.0, when={"layers": (1, 2, 3), "model": ("a", "b")}),
        "never": Float(low=0.0, high=1.0, when={"off": True}),
        "single": Int(low=4, high=4, when={"model": "a"}),
        "below": Choice(choices=(1, 2, 3), when={"single": 4}),
    }
)


@pytest.mark.parametrize("space", [SPACE, NESTED])
@pytest.mark.requirement("SEARCH-10")
def test_expressed_genes_are_those_of_the_config_that_the_space_makes_of_them(space: Space) -> None:
    genome = Genome(space)
    genes = np.random.default_rng(0).random((400, genome.n_genes))
    expressed = genome.express(genes)
    for raw, row in zip(genes, expressed, strict=True):
        config = genome.decode(raw)
        assert space.problems(config) == ()
        np.testing.assert_allclose(row, genome.encode(config), atol=1e-12)
        np.testing.assert_allclose(row, genome.encode(genome.decode(row)), atol=1e-12)


def test_expressing_twice_changes_nothing_and_equal_configs_have_equal_keys() -> None:
    genome = Genome(SPACE)
    expressed = genome.express(np.random.default_rng(1).random((200, genome.n_genes)))
    again = genome.express(np.nan_to_num(expressed, nan=0.5))
    assert [key(row) for row in again] == [key(row) for row in expressed]


def test_features_put_two_values_of_a_choice_at_distance_one() -> None:
    genome = Genome(Space({"kind": Choice(choices=("a", "b", "c")), "x": Float(low=0.0, high=2.0)}))
    features = genome.features(genome.express(np.array([[0.1, 0.5], [0.5, 0.5], [0.9, 0.25]])))
    assert np.linalg.norm(features[0] - features[1]) == pytest.approx(1.0)
    assert np.linalg.norm(features[1] - features[2]) == pytest.approx(np.hypot(1.0, 0.25))
    assert genome.groups.tolist() == [0, 0, 0, 1]


def test_a_space_of_one_point_has_no_genes() -> None:
    genome = Genome(ONE_POINT)
    assert genome.n_genes == 0
    assert genome.features(np.zeros((2, 0))).shape == (2, 0)
    assert genome.decode(np.zeros(0)) == {"lr": 0.1, "kind": "ssm", "depth": 3}
