"""What the vault said, in words and as the cells of a table: in the verdict, on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.reports.amounts import with_error
from analysis.run_folder import Plan
from analysis.vault import FinalScore, Opening

CLEAR = 2.0
"""Standard errors beyond which two numbers are said to differ."""
HEAD = ("trial", "validation loss", "vault loss", "validation IC", "vault IC", "saved against a naive forecast")


def sentences(plan: Plan, ledger: Sequence[Opening], scores: Sequence[FinalScore]) -> list[str]:
    """Return what a reader must know about the vault: closed, or opened by whom, after what, and what it said."""
    if not plan.vault:
        return ["The plan names no final test period."]
    period = f"{plan.vault.get('start', '?')} to {plan.vault.get('end', '?')}"
    if not ledger:
        return [f"The vault (final test period {period}) is unopened: no trial has read a row of it."]
    last = ledger[-1]
    times = "once" if len(ledger) == 1 else f"{len(ledger)} times, the last"
    opened = (
        f"The vault (final test period {period}) was opened {times} on {last.time_utc[:10]} by {last.who}, for "
        f"{_named(last)}, after {last.n_trials} trials."
    )
    more = len(scores) - 1
    others = [f"What it said of the other {more} is in the table of the final test."] if more > 1 else []
    return [opened, *(_said(score) for score in (scores[:1] if others else scores)), *others]


def warnings(ledger: Sequence[Opening], n_tried: int) -> list[str]:
    """Return what weakens the final test: openings after the first, and trials that were tried after one.

    Args:
        ledger: All openings.
        n_tried: Trials that the run has by now.
    """
    found = []
    if len(ledger) > 1:
        days = ", ".join(f"{o.time_utc[:10]} by {o.who} for {_named(o)}" for o in ledger[:-1])
        found.append(
            f"The vault was opened {len(ledger)} times (before: {days}): the last numbers were seen by somebody who "
            "knew the first, and are no test any more."
        )
    if ledger and n_tried > ledger[0].n_trials:
        found.append(
            f"{n_tried - ledger[0].n_trials} trials were started after the vault had been opened: whoever chose them "
            "may have known what it says."
        )
    return found


def cells(score: FinalScore) -> tuple[str, ...]:
    """Return the cells of a row under `HEAD`."""
    promised = score.validation
    return (
        score.trial_id,
        _number(promised.get("val_loss")),
        with_error(score.loss.mean, score.loss.error) if score.loss else _number(score.vault.get("val_loss")),
        _number(promised.get("ic"), "+.3f"),
        with_error(score.ic.value, score.ic.error, "+") if score.ic else _number(score.vault.get("ic"), "+.3f"),
        f"{with_error(score.saving.mean, score.saving.error, '+')} of {score.measure}" if score.saving else "–",
    )


def _said(score: FinalScore) -> str:
    text = f"On it, {score.trial_id} has loss {cells(score)[2]}"
    if "val_loss" in score.validation and score.loss is not None:
        text += f" where the search had promised {_number(score.validation['val_loss'])}"
        gap = score.loss.mean - score.validation["val_loss"]
        if score.loss.error:
            side = "higher" if gap > 0 else "lower"
            is_clear = abs(gap) > CLEAR * score.loss.error
            doubt = "" if is_clear else ", which is no clear difference"
            text += f" ({side} by {abs(gap) / score.loss.error:.1f} standard errors{doubt})"
    if score.saving is None:
        return text + "; there is nothing naive to compare it with."
    t = score.saving.mean / score.saving.error if score.saving.error else None
    if t is None or abs(t) <= CLEAR:
        verdict = "cannot be told apart from" if t is not None else "was compared on too few rows with"
    else:
        verdict = "beats" if t > 0 else "is worse than"
    sure = "" if t is None else f" (t = {t:.1f}, {score.saving.n_rows} rows)"
    return f"{text}; in {score.measure} it {verdict} {score.baseline}{sure}."


def _named(opening: Opening) -> str:
    names = list(opening.trial_ids)
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"the {opening.choice.replace('_', ' ')} ({shown})" if "t0" not in opening.choice else shown


def _number(value: float | None, form: str = ".4g") -> str:
    return "–" if value is None else f"{value:{form}}"
