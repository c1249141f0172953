"""Evolutionary-Bayesian search (SEARCH-1): evolution breeds hundreds of candidates, a surrogate picks the one to try.

Every proposal starts from the elites: children by tournament, crossover and mutation with self-adapted strength, close
relatives of the very best, and configs drawn afresh. A Gaussian process over all results, those of stopped trials
included, scores them by expected improvement and by the chance that they can be trained; the best are bred on for a few
rounds with ever smaller steps. So every candidate is valid in mixed and conditional spaces, and has parents.

Where the surrogate predicts left-out results no better than their mean does, proposals are plain children.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from search.objective import Objective
from search.optimizers import Proposal
from search.optimizers.experience import Experience
from search.optimizers.gaussian_process import Prior
from search.optimizers.genome import Array, Genome
from search.optimizers.one_thread import one_thread
from search.optimizers.scalarisation import drawn_weights
from search.optimizers.surrogate import VIEWS, Screen, Surrogate
from search.optimizers.valuation import FIRST_STRENGTH
from search.optimizers.variation import Brood, Indices, adapted, crossover, joined, mutate, tournament
from search.space import Space
from search.table import refuse_unknown
from search.trial import Trial

MOST_SOBOL = 1024
"""Later first proposals are drawn at random; also the most parameters for which a Sobol sequence is made."""
FULL_BROOD = 100
"""Results of a surrogate up to which all candidates are bred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How evolution and surrogate share the work; defaults by benchmarks/RESULTS.md but where a source is named.

    Attributes:
        n_startup: Results before the surrogate begins; until then a scrambled Sobol sequence proposes.
        n_elites: Configs that breed.
        tournament: Elites that compete to be a parent (SEARCH-5).
        n_candidates: Candidates of the first round, as long as the surrogate holds no more than `FULL_BROOD` results.
        rounds: Rounds of breeding on with smaller steps.
        n_bred_on: Candidates that are bred on in a round, with as many children each as gives the same number again.
        mutation_rate: Chance of a gene to change.
        self_adaptation: Standard deviation of the logarithm of a strength from parent to child.
        surrogate_share: Share of proposals that the surrogate picks; the others are plain children.
        n_points: Most results that a surrogate holds.
    """

    n_startup: int = 4
    n_elites: int = 16
    tournament: int = 3
    n_candidates: int = 800
    rounds: int = 6
    n_bred_on: int = 10
    mutation_rate: float = 0.25
    self_adaptation: float = 0.5
    surrogate_share: float = 1.0
    n_points: int = 200

    def __post_init__(self) -> None:
        least = {"n_startup": 2, "n_elites": 1, "tournament": 1, "n_candidates": 4, "rounds": 0, "n_bred_on": 1}
        for name, bound in {**least, "n_points": 20}.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}: expected at least {bound}, found {getattr(self, name)}")
        for name in ("mutation_rate", "surrogate_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share between 0 and 1, found {getattr(self, name)}")


class EvolutionaryBayesian:
    """Breed candidates from the elites and let a surrogate choose.

    Args:
        space: What may vary.
        objectives: One or more; several are weighed anew for every proposal.
        seed: Of the search; scrambles the first proposals.
        settings: See there.
    """

    def __init__(self, space: Space, objectives: Sequence[Objective], *, seed: int, settings: Settings) -> None:
        self.genome = Genome(space)
        self.settings = settings
        self._seed = seed
        self._experience = Experience(self.genome, objectives, first_mark=settings.n_startup)
        self._surrogate = Surrogate(self._experience, n_points=settings.n_points, prior=Prior())

    def tell(self, trial: Trial) -> None:
        self._experience.tell(trial)

    @one_thread
    def ask(self, number: int, seed: int) -> Proposal:
        rng = np.random.default_rng(seed)
        if self._experience.n_valued < self.settings.n_startup or self.genome.n_genes == 0:
            return Proposal(config=self.genome.decode(self._first(number, rng)), origin="random")
        weights = drawn_weights(len(self._experience.objectives), rng)
        screen = self._surrogate.screen(str(rng.choice(list(VIEWS))), weights)
        elites = np.argsort(screen.means, kind="stable")[: self.settings.n_elites]
        brood = self._first_brood(screen, elites, rng)
        if screen.explains and rng.random() < self.settings.surrogate_share:
            brood, scores = self._bred_on(brood, screen, rng)
            return self._proposal(brood, scores, screen, elites, "surrogate")
        children = brood.taken(np.arange(len(brood.genes) // 2))
        chances = screen.log_trainable(children.genes) + rng.gumbel(size=len(children.genes))
        return self._proposal(children, chances, screen, elites, "child")

    def _first(self, number: int, rng: np.random.Generator) -> Array:
        """Return the genes of a proposal that knows nothing: the next Sobol point, else the first new random one."""
        d = self.genome.n_genes
        drawn = rng.random((32, d))
        if 0 < d <= MOST_SOBOL and number < MOST_SOBOL:
            sequence = qmc.Sobol(d, scramble=True, rng=self._seed)
            if number:
                sequence.fast_forward(number)
            drawn[0] = sequence.random(1)[0]
        expressed = self.genome.express(drawn)
        return next((row for row in expressed if not self._experience.is_known(row)), expressed[0])

    def _first_brood(self, screen: Screen, elites: Indices, rng: np.random.Generator) -> Brood:
        """Return children of two elites (the first half), relatives of the three best, and as many fresh configs."""
        genes, strengths = screen.results.genes[elites], screen.results.strengths[elites]
        quarter, settings = self._n_candidates(screen) // 4, self.settings
        first, second = (tournament(len(genes), 2 * quarter, settings.tournament, rng) for _ in range(2))
        inherited = np.sqrt(strengths[first] * strengths[second])
        strength = adapted(inherited, rng, rate=settings.self_adaptation, least=0.005, most=0.5)
        children = self._mutated(crossover(genes[first], genes[second], rng), strength, rng)
        best = rng.integers(min(3, len(genes)), size=quarter)
        small = np.exp(rng.uniform(math.log(0.003), math.log(0.3), quarter))
        relatives = self._mutated(genes[best], small, rng)
        fresh = self.genome.express(rng.random((quarter, self.genome.n_genes)))
        nobody, usual = np.full((quarter, 2), -1), np.full(quarter, FIRST_STRENGTH)
        return joined(
            Brood(genes=children, parents=np.column_stack([first, second]), strengths=strength),
            Brood(genes=relatives, parents=np.column_stack([best, best]), strengths=small),
            Brood(genes=fresh, parents=nobody, strengths=usual),
        )

    def _bred_on(self, brood: Brood, screen: Screen, rng: np.random.Generator) -> tuple[Brood, Array]:
        """Return the brood, with children of its most promising candidates over some rounds, and all scores."""
        scores = screen.score(brood.genes)
        for level in range(1, self.settings.rounds + 1):
            top = np.argsort(-scores, kind="stable")[: self.settings.n_bred_on]
            old = brood.taken(np.repeat(top, max(self._n_candidates(screen) // (3 * len(top)), 1)))
            steps = np.exp(rng.uniform((level + 1) * math.log(0.3), level * math.log(0.5), len(old.genes)))
            new = Brood(genes=self._mutated(old.genes, steps, rng), parents=old.parents, strengths=old.strengths)
            brood, scores = joined(brood, new), np.concatenate([scores, screen.score(new.genes)])
        return brood, scores

    def _n_candidates(self, screen: Screen) -> int:
        """Return how many candidates a round begins with: fewer where each costs more, so that a decision does not."""
        return max(4, min(self.settings.n_candidates, self.settings.n_candidates * FULL_BROOD // screen.n_held))

    def _mutated(self, genes: Array, strengths: Array, rng: np.random.Generator) -> Array:
        return self.genome.express(mutate(genes, strengths, self.genome, rng, rate=self.settings.mutation_rate))

    def _proposal(self, brood: Brood, scores: Array, screen: Screen, elites: Indices, origin: str) -> Proposal:
        """Return the best candidate that is new, or the best where none is."""
        order = np.argsort(-scores, kind="stable")
        row = next((r for r in order if not self._experience.is_known(brood.genes[r])), order[0])
        ids = [screen.results.ids[elites[parent]] for parent in brood.parents[row] if parent >= 0]
        return Proposal(
            config=self.genome.decode(brood.genes[row]),
            origin=origin,
            parents=tuple(dict.fromkeys(ids)),
            note={"strength": float(brood.strengths[row])},
        )


def evolutionary_bayesian(
    space: Space, *, objectives: Sequence[Objective], population: int, seed: int, **settings: float
) -> EvolutionaryBayesian:
    """Make an evolutionary-Bayesian search.

    Args:
        space: What may vary.
        objectives: One or more.
        population: Not used: there is no barrier between generations, which the study counts.
        seed: Of the search.
        settings: Fields of `Settings`.

    Raises:
        ValueError: A setting is unknown or out of its range.
    """
    refuse_unknown(settings, Settings)
    return EvolutionaryBayesian(space, objectives, seed=seed, settings=Settings(**settings))  # type: ignore[arg-type]
