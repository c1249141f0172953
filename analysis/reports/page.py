"""The report page: one self-contained `report.html` that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from statistics import median
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis.atomic import write_text
from analysis.reports import leaderboard, plots, skill, verdict
from analysis.reports.leaderboard import SHOWN, Leaderboard
from analysis.run_folder import EvidenceCheck, RunFolder

MOST_ROWS = 25
"""Leaderboard rows shown at once; the others are one click away, and all are in ranking.csv."""


def write(run: RunFolder) -> Leaderboard:
    """Write `ranking.csv` and `report.html` into the run folder and return the leaderboard.

    Raises:
        ValueError: The plan names an order that does not exist.
        OSError: The folder cannot be written to.
    """
    board = leaderboard.build(run)
    leaderboard.write_csv(run, board)
    write_text(run.path / "report.html", render(run, board))
    return board


def render(run: RunFolder, board: Leaderboard) -> str:
    """Return the page as text."""
    check = run.check_evidence()
    skills, ics = _leader_skill(run, board, check)
    shown = [m for m in SHOWN if m in run.metrics]
    figures = _figures(run, board)
    return _template().render(
        title=run.path.resolve().name,
        plan=run.plan,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        verdict=verdict.write(run.plan, board, check, skills, ics),
        board=board,
        metrics=shown,
        words=verdict.METRIC_WORDS,
        states=verdict.STATE_WORDS,
        amount=verdict.amount,
        digits={m: _digits(board, m) for m in shown},
        most_rows=MOST_ROWS,
        varying=_varying(board, run.parameters),
        check=check,
        facts=_facts(run),
        figure_names=set(figures),
        figures=_script_safe(figures),
        plotly=Markup(_plotly()),
    )


def _figures(run: RunFolder, board: Leaderboard) -> dict[str, Any]:
    """Return figures by the id of their place on the page; a figure without content is absent."""
    measures = [m for m in ("val_loss", "ic", "crps", "regime_accuracy") if m in run.metrics]
    made: Mapping[str, go.Figure | None] = {
        "leaderboard": plots.leaderboard(board) if board.ranked else None,
        "folds": plots.fold_heat_map(board, run.folds, measures) if len(run.folds) else None,
        "flatness": plots.loss_against_flatness(board),
        "pareto": plots.pareto(board),
        "parallel": plots.parallel_coordinates(board, run.parameters),
        "history": plots.history(board, run.folds) if len(run.trials) else None,
    }
    return {name: json.loads(figure.to_json()) for name, figure in made.items() if figure is not None}


def _leader_skill(
    run: RunFolder, board: Leaderboard, check: EvidenceCheck
) -> tuple[list[skill.Skill] | None, dict[str, Any]]:
    broken = {file.split("/")[1] for file, _ in check.broken}
    if board.leader is None or board.leader.trial_id in broken:
        return None, {}
    try:
        evidence = run.evidence(board.leader.trial_id)
        return (None, {}) if evidence is None else (skill.against_baseline(evidence), skill.ic_by_horizon(evidence))
    except ValueError:  # rows cut short, an infinite prediction: the verdict says that nothing was compared
        return None, {}


def _digits(board: Leaderboard, metric: str) -> int:
    """Return the decimals of a column of the leaderboard: those of its median error, so that numbers line up."""
    errors = [e.errors[metric] for e in board.ranked if metric in e.errors]
    return verdict.decimals(median(errors)) if errors else 4


def _varying(board: Leaderboard, parameters: tuple[str, ...]) -> list[str]:
    """Return the parameters that differ between ranked trials: the others say nothing on a leaderboard."""
    return [name for name in parameters if len({repr(e.parameters.get(name)) for e in board.ranked}) > 1]


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    plan = run.plan
    objectives = ", ".join(f"{o['metric']} ({o['direction']})" for o in plan.objectives)
    took = "" if plan.wall_s is None else f"{plan.wall_s / 60:.1f} minutes"
    facts = [
        ("family", plan.family),
        ("objectives", objectives),
        ("order of the ranking", plan.order),
        ("seed", str(plan.seed)),
        ("commit", plan.commit or "unknown"),
        ("data snapshot", plan.data_snapshot),
        ("started", plan.started_utc),
        ("ended", plan.ended_utc or "not yet"),
        ("wall time", took),
        ("rungs", ", ".join(f"fold {int(fold)} at {share:g}" for fold, share in plan.ladder)),
        ("versions", ", ".join(f"{name} {version}" for name, version in plan.versions.items())),
    ]
    facts += [(name.replace("_", " "), v if isinstance(v, str) else json.dumps(v)) for name, v in plan.more.items()]
    return [(name, value) for name, value in facts if value]


def _script_safe(value: Any) -> Markup:
    """Return JSON that cannot end the script element it stands in, whatever text it holds."""
    text = json.dumps(value, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


@cache
def _plotly() -> str:
    return get_plotlyjs()


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("analysis.reports", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
