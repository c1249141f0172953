"""The verdict of a run in plain words, and what a reader must know before believing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.evidence import LeftOut
from analysis.measures.ic import IcEstimate
from analysis.reports import claims, final
from analysis.reports.amounts import amount
from analysis.reports.honesty import Honesty
from analysis.reports.leaderboard import Leaderboard
from analysis.reports.skill import Skill, two_sided_p
from analysis.run_folder import EvidenceCheck, Plan, inherited_trials
from analysis.vault import FinalScore, Opening

LEVEL = 0.05
"""Two-sided level below which the page says that something differs from nothing."""
STATE_WORDS = {
    "complete": "complete",
    "stopped": "stopped early",
    "paused": "set aside",
    "failed": "failed",
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "infeasible": "infeasible",
    "lost": "lost with their worker",
    "running": "unfinished",
}
METRIC_WORDS = {
    "val_loss": "validation loss",
    "ic": "IC",
    "crps": "CRPS",
    "flatness": "flatness",
    "regime_accuracy": "regime accuracy",
    "curve_flatness": "flatness of the loss curve",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A headline, what carries it as (subject, sentences), and warnings, most important first."""

    headline: str
    parts: Sequence[tuple[str, Sequence[str]]]
    warnings: Sequence[str]

    @property
    def sentences(self) -> list[str]:
        return [sentence for _, said in self.parts for sentence in said]


def write(
    plan: Plan,
    board: Leaderboard,
    check: EvidenceCheck,
    skills: Sequence[Skill] | None,
    ics: dict[str, IcEstimate],
    honesty: Honesty,
    left_out: LeftOut | None = None,
    edges: Sequence[str] = (),
    flat: Sequence[str] = (),
    states: Sequence[str] = (),
    ledger: Sequence[Opening] = (),
    scores: Sequence[FinalScore] = (),
    n_tried: int = 0,
) -> Verdict:
    """Say what the run found.

    Args:
        plan: The run's plan.
        board: Its leaderboard.
        check: What of the evidence can be used.
        skills: The leader against naive forecasts; empty where evidence allows no comparison, None without evidence.
        ics: The leader's IC by horizon over all folds.
        honesty: What may be claimed.
        left_out: Trials that could not be compared; none: all could.
        edges: Parameters whose best values lie at an end of their range, described.
        flat: What flatness and the leader's neighbours say, in sentences.
        states: Whether the order holds over states of the market, in sentences.
        ledger: Openings of the vault.
        scores: What the newest of them said.
        n_tried: Trials of this run by now, as the ledger counts them.
    """
    tried, vault = ("What was tried", [_tried(plan, board)]), final.sentences(plan, ledger, scores)
    parts = [tried, ("Final test", vault)] if ledger else [tried]
    if board.leader is not None:
        judged = claims.parts(honesty)
        parts += [*judged, (f"The leader, {board.leader.trial_id}", _leader(board, honesty, skills, ics, bool(judged)))]
        parts += [("Flatness", flat), ("States of the market", states)]
    parts += [] if ledger else [("Final test", vault)]
    warnings = [
        *final.warnings(ledger, n_tried),
        *_warnings(plan, board, check),
        *claims.warnings(honesty, left_out or LeftOut()),
        *edges,
    ]
    return Verdict(headline=_headline(board, honesty), parts=[p for p in parts if p[1]], warnings=warnings)


def _leader(
    board: Leaderboard,
    honesty: Honesty,
    skills: Sequence[Skill] | None,
    ics: dict[str, IcEstimate],
    is_judged: bool,
) -> list[str]:
    found = [_leads(board), *_outside(board, honesty)]
    found += [] if honesty.confidence is not None else [_indistinct(board)]
    return [*found, _naive(skills), *_ic(ics), *([] if is_judged else [_selection(board)])]


def _outside(board: Leaderboard, honesty: Honesty) -> list[str]:
    """Say where the order of the ranking and the confidence set disagree about the first place."""
    leader = board.leader
    if leader is None or honesty.confidence is None or leader.trial_id in honesty.members:
        return []
    p = honesty.p_by_trial.get(leader.trial_id)
    why = "it could not be compared" if p is None else f"p = {p:.3f}"
    return [
        f"{leader.trial_id} leads by the order of the ranking but is not in the confidence set ({why}): "
        "do not prefer it."
    ]


def _headline(board: Leaderboard, honesty: Honesty) -> str:
    leader, group = board.leader, board.indistinct
    if leader is None:
        return "No trial completed: there is nothing to rank."
    if found := claims.headline(honesty):
        return found
    if len(board.ranked) == 1:
        return f"{leader.trial_id} is the only complete trial: there is nothing to compare it with."
    if leader.is_tied:
        names = _listed([e.trial_id for e in board.ranked if e.rank == 1])
        return f"No single winner: {names} share the first rank."
    if len(group) > 1:
        others = len(group) - 1
        trials = "trial" if others == 1 else "trials"
        return f"{leader.trial_id} leads, but {others} other {trials} cannot be told apart from the best."
    return f"{leader.trial_id} leads; no other trial lies within one standard error of it."


def _tried(plan: Plan, board: Leaderboard) -> str:
    counts = board.counts()
    n_trials, n_folds = sum(counts.values()), len(plan.folds)
    states = _listed([f"{n} {STATE_WORDS.get(state, state)}" for state, n in counts.items()])
    over = f"on {n_folds} walk-forward fold{'s' * (n_folds != 1)}"
    if n_folds:
        over += f" (validation {plan.folds[0]['validation_start']} to {plan.folds[-1]['validation_end']})"
    before = inherited_trials(plan)
    told = f" An earlier search on these folds had tried {before} more; tests of luck count them." if before else ""
    return f"{n_trials} trial{'s' * (n_trials != 1)} {over}: {states or 'none'}.{told}"


def _leads(board: Leaderboard) -> str:
    leader = board.leader
    assert leader is not None
    text = f"{leader.trial_id} has validation loss {amount(leader, 'val_loss')} over {leader.n_folds} folds"
    known = [m for m in ("ic", "crps", "flatness") if m in leader.values]
    if known:
        text += f", {_listed([f'{METRIC_WORDS[m]} {amount(leader, m)}' for m in known])}"
    lowest = min(board.ranked, key=lambda e: e.values["val_loss"])
    if lowest.trial_id == leader.trial_id:
        return f"{text}; no loss is lower."
    later = [METRIC_WORDS[c.metric] for c in board.criteria[1:]]
    return (
        f"{text}. The lowest loss is that of {lowest.trial_id}, {amount(lowest, 'val_loss')}; {leader.trial_id} lies "
        f"within its standard error, and there the next criteria decide ({', '.join(later)})."
    )


def _indistinct(board: Leaderboard) -> str:
    group, n = board.indistinct, len(board.ranked)
    if n == 1:
        return "A ranking needs more than one complete trial."
    if board.n_folds < 2:
        return "With one fold there is no standard error: the order is that of single numbers and may be chance."
    if len(group) == 1:
        return (
            f"The other {n - 1} complete trials lie further off than one standard error over {board.n_folds} folds; "
            f"that is a hint, not a proof."
        )
    names = [e.trial_id for e in group]
    shown = _listed(names) if len(names) <= 12 else f"{', '.join(names[:12])} and {len(names) - 12} more"
    return (
        f"Within one standard error of the lowest loss over {board.n_folds} folds lie {len(group)} of {n} complete "
        f"trials: {shown}. {_paired(board)}"
    )


def _paired(board: Leaderboard) -> str:
    """Say who falls behind where trials are compared fold by fold: the sharper comparison, as folds differ most."""
    behind = [
        e.trial_id
        for e in board.indistinct
        if e.behind and e.behind.error is not None and e.behind.mean > 2 * e.behind.error > 0
    ]
    if not behind:
        return "Compared fold by fold none of them is two standard errors behind the leader either: take any of them."
    fall = "falls" if len(behind) == 1 else "fall"
    return f"Compared fold by fold, {_listed(behind)} {fall} more than two standard errors behind the leader."


def _naive(skills: Sequence[Skill] | None) -> str:
    if skills is None:
        return "The leader has no usable evidence: it was not compared with a naive forecast."
    if not skills:
        return "The leader's evidence holds no predicted scale and no naive scores: not compared with a naive forecast."
    parts, baseline = [], ""
    for s in skills:
        side = "lower" if s.reduction >= 0 else "higher"
        against = f" than that of {s.baseline}" if s.baseline != baseline else ""
        sure = (
            "too few rows to say more"
            if s.p is None
            else f"t = {s.t:.1f}: {'they differ' if s.p < LEVEL else 'cannot be told apart'}"
        )
        parts.append(f"its {s.measure} is {abs(s.reduction):.1%} {side}{against} ({s.n_rows} rows; {sure})")
        baseline = s.baseline
    return f"Against naive forecasts: {'; '.join(parts)}."


def _ic(ics: dict[str, IcEstimate]) -> list[str]:
    parts = []
    for horizon, e in ics.items():
        t = e.value / e.error if e.error else None
        p = two_sided_p(t, e.degrees_of_freedom)
        sure = (
            "too few rows for an error"
            if p is None
            else f"t = {t:.1f}: {'differs' if p < LEVEL else 'cannot be told'} from zero"
        )
        parts.append(f"{e.value:+.3f} at {horizon} ({sure})")
    return [f"Its rank correlation with what happened, over all folds: {_listed(parts)}."] if parts else []


def _selection(board: Leaderboard) -> str:
    n = sum(board.counts().values())
    return (
        f"The leader was chosen from {n} trials by the same rows that give its numbers, so expect less on new data; "
        "errors and t values here do not allow for the choice."
        if n > 1
        else "One trial was tried, so nothing was chosen."
    )


def _warnings(plan: Plan, board: Leaderboard, check: EvidenceCheck) -> list[str]:
    found = []
    if plan.ended_utc is None:
        found.append("The search has not ended; resume it with --resume and write this page again.")
    if board.ranked and board.n_folds < 5:
        found.append(
            f"Only {board.n_folds} fold{'s' * (board.n_folds != 1)}: standard errors are themselves uncertain."
        )
    leaky = [e.trial_id for e in board.ranked if e.parameters.get("norm_scope") == "global_documented"]
    if leaky:
        found.append(
            f"Leaky normaliser (norm_scope: global_documented) in {_listed(leaky)}: their scores look too good."
        )
    if check.missing:
        found.append(
            f"Evidence is missing for {len(check.missing)} of {check.n_expected} trials: {_short(check.missing)}."
        )
    if check.broken:
        names = [f"{file} ({why})" for file, why in check.broken]
        found.append(f"{len(names)} evidence file{'s' * (len(names) != 1)} cannot be read: {_short(names)}.")
    if plan.commit.endswith("+"):
        found.append("The code had uncommitted changes: the commit alone does not repeat this run.")
    return found


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _short(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
