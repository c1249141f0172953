"""How often the report announces what is not there: `python benchmarks/honesty.py [--first-seed 910000] [--seeds 100]`.

Searches over a made-up market of which the truth is known (`tests/analysis/synthetic_search.py`: GARCH returns with fat
tails; persistent forecasts, alike within families) are judged as the report judges them. Aims: on pure noise the
headline says "No winner" in 95 % of the seeds; with four trials planted whose forecasts correlate 0.05 with what
happens, one of them is in the confidence set in 95 %, and no other trial is announced. Two forms: trials without skill
cost what the variance of their forecast adds, or ("equal") have the expected loss of the naive forecast exactly, which
is the hardest case to stay silent in. Prints a line of JSON for each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from scipy.stats import beta

from analysis.reports import claims, honesty
from analysis.reports.honesty import Honesty
from tests.analysis.synthetic_search import search

N_PLANTED = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-seed", type=int, default=910_000)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--most-trials", type=int, default=200)
    asked = parser.parse_args()
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    for is_equal in (False, True):
        print(json.dumps(noise(seeds, asked.most_trials, is_equal=is_equal)), flush=True)
        print(json.dumps(planted(seeds, asked.most_trials, is_equal=is_equal)), flush=True)
    return 0


def noise(seeds: range, most_trials: int, *, is_equal: bool) -> dict[str, object]:
    """Search where nothing can be found: 1 to `most_trials` trials, 3 to 12 folds of 63 to 300 rows."""
    silent, others = 0, []
    for seed in seeds:
        generator = np.random.default_rng([seed, 1])
        n_trials, n_folds = int(generator.integers(1, most_trials + 1)), int(generator.integers(3, 13))
        rows = int(generator.integers(63, 300))
        evidence = search(seed, n_trials=n_trials, n_folds=n_folds, rows_per_fold=rows, is_equal=is_equal)
        judged = honesty.assess(evidence, n_started=int(n_trials * generator.uniform(1, 4)))
        is_silent = says_no_winner(judged)
        silent += is_silent
        others += [] if is_silent else [(seed, claims.headline(judged))]
    return {"case": "noise", **_facts(seeds, is_equal), "no_winner": _share(silent, len(seeds)), "announced": others}


def planted(seeds: range, most_trials: int, *, is_equal: bool) -> dict[str, object]:
    """Search where four of 20 to `most_trials` trials see a signal of IC 0.05, over 20 folds of 250 rows."""
    inside, headlines, named, wrong = 0, Counter[str](), 0, []
    for seed in seeds:
        n_trials = int(np.random.default_rng([seed, 2]).integers(20, most_trials + 1))
        evidence = search(seed, n_trials=n_trials, n_folds=20, n_planted=N_PLANTED, is_equal=is_equal)
        judged = honesty.assess(evidence, n_started=2 * n_trials)
        family = set(evidence.trial_ids[:N_PLANTED])
        inside += bool(family & set(judged.members))
        headlines[judged.finding] += 1
        named += any(set(t.superior) - family for t in judged.naive)
        if judged.finding == "winner" and judged.best not in family:
            wrong.append(seed)
    return {
        "case": "planted",
        **_facts(seeds, is_equal),
        "family_in_set": _share(inside, len(seeds)),
        "naive_winner_announced": wrong,
        "outsider_named_beside": named,
        "headlines": dict(headlines),
    }


def says_no_winner(judged: Honesty) -> bool:
    """Return whether a reader is told that there is no winner."""
    return (claims.headline(judged) or "").startswith("No winner")


def _facts(seeds: range, is_equal: bool) -> dict[str, object]:
    return {"seeds": f"{seeds[0]}-{seeds[-1]}", "losses": "equal" if is_equal else "of their variance"}


def _share(k: int, n: int) -> list[float]:
    """Return the share and its 95 % interval by Clopper and Pearson."""
    low = 0.0 if k == 0 else beta.ppf(0.025, k, n - k + 1)
    high = 1.0 if k == n else beta.ppf(0.975, k + 1, n - k)
    return [round(float(v), 3) for v in (k / n, low, high)]


if __name__ == "__main__":
    sys.exit(main())
