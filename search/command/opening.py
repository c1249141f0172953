"""Where a search begins or goes on: its data set, what it takes over from an earlier one, and its study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.command.setup import Setup, machine

if TYPE_CHECKING:
    from search.settings import SearchSection
    from search.study import Study
    from search.trial import Config
    from search.warm_start import WarmStart
    from trainables.data.dataset import Dataset


def check_data(setup: Setup, run_dir: Path) -> tuple[Dataset, str]:
    """Build the default config's data set and lay the folds over it, so that data errors come before any trial.

    Returns:
        The data set, and the hash of what is scored: only results over equal ones may be compared.
    """
    from trainables.catalogue import family
    from trainables.data.folds import check_folds, scored_digest

    spec, space = setup.spec, setup.spec.space()
    config = setup.full_config(space.complete({}))
    dataset: Dataset = family(spec.family).dataset(config, setup.data, setup.folds, space.reach(), run_dir / "store")
    lookback = setup.config_class.scored_lookback(space.reach())
    rows = check_folds(
        setup.market.plan.windows, dataset,
        lookback=lookback, scored_lookback=lookback, embargo=setup.folds.embargo_days,
    )  # fmt: skip
    return dataset, scored_digest(rows, dataset)


def taken_over(setup: Setup, run_dir: Path, scored: str, is_resumed: bool) -> WarmStart:
    """Return what the search takes over from an earlier one; a resumed one has it in its journal."""
    from search.study import Study
    from search.validity import resolved
    from search.warm_start import WarmStart, warm_start

    if is_resumed:
        return WarmStart.from_header(Study.read(run_dir / "journal.sqlite").header)
    if setup.earlier is None:
        return WarmStart()
    warm = warm_start(
        setup.earlier,
        space=setup.spec.space(),
        ladder=setup.ladder,
        facts={"family": setup.spec.family, "scored": scored, "fidelity": setup.fidelity},
        resolve=lambda config: resolved(config, setup.config_class),
    )
    print(warm.describe(), file=sys.stderr)
    return warm


def open_study(setup: Setup, run_dir: Path, dataset: Dataset, scored: str, warm: WarmStart, is_resumed: bool) -> Study:
    """Begin the study of a run folder, or go on with it.

    Args:
        setup: What was checked.
        run_dir: Where its journal is, or will be, and its space file.
        dataset: Of the default config; its snapshot and marks go into the header.
        scored: Hash of what is scored.
        warm: What is taken over from an earlier search.
        is_resumed: Whether the journal is there.

    Raises:
        JournalError: It is another driver's, damaged, or that of another search.
    """
    from search.command.provenance import provenance
    from search.study import Study
    from search.validity import infeasible_reason, resolved

    spec, search = setup.spec, setup.spec.search
    header = {
        "family": spec.family,
        "data_snapshot": dataset.snapshot,
        "data": spec.data.model_dump(mode="json"),
        "folds": spec.folds.model_dump(mode="json"),
        "marks": dict(dataset.marks),
        "scored": scored,
        "fidelity": setup.fidelity,
        "warm_start": warm.to_header(),
        **provenance(),
    }
    charter = {
        "space": spec.space(),
        "ladder": setup.ladder,
        "n_trials": spec.budget.trials,
        "objectives": spec.minimised(),
        "constraints": spec.bounds(),
        "optimizer": {"name": search.optimizer, **optimizer_settings(search)},
        "stopping": {"name": search.stopping.rule, **search.stopping.model_dump(exclude={"rule"})},
        "seed": setup.seed,
        "enqueue": (*search.enqueue, *warm.enqueue),
        "prior": warm.prior,
        "defaults": resolved({}, setup.config_class) or {},
        "population": search.population,
        "synchronous": search.synchronous,
        "limits": spec.limits(),
        "unlock": search.unlock.model_dump(mode="json") if search.unlock else {},
    }
    if not is_resumed:
        (run_dir / "space.yaml").write_text(setup.document.resolved_yaml(), encoding="utf-8")
    make = Study.resume if is_resumed else Study.create

    def infeasible(config: Config) -> str | None:
        return infeasible_reason(config, setup.config_class, machine(spec), spec.bounds())

    return make(run_dir / "journal.sqlite", header=header, infeasible=infeasible, **charter)


def optimizer_settings(search: SearchSection) -> dict[str, Any]:
    """Return what the space file says to the optimizer that it names."""
    from trainables.config import OPTIMISATION_FIELDS

    if search.optimizer == "population_based":
        return {"genes": list(OPTIMISATION_FIELDS)}
    return {} if search.n_startup is None else {"n_startup": search.n_startup}
