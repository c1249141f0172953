"""`python -m trainables.features list`: the table of features."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from trainables.features.columns import describe
from trainables.features.registry import REGISTRY, rows_of
from trainables.features.schemas import SCHEMAS
from trainables.features.settings import FeatureSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the registry or one schema, as a table or as JSON.

    Args:
        arguments: Command line; none: that of the process.

    Returns:
        0; 2 where the command line is wrong (argparse exits).
    """
    parser = argparse.ArgumentParser(
        prog="python -m trainables.features", description="The features and their schemas."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="print every feature, or those of one schema in column order")
    listing.add_argument("--schema", choices=sorted(SCHEMAS), help="only this schema")
    listing.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    listing.add_argument("--bars-per-session", type=int, default=390, help="for look-backs that count sessions")
    options = parser.parse_args(arguments)
    rows = rows_of(options.schema) if options.schema else tuple(REGISTRY.values())
    described = [describe(row, FeatureSettings(), options.bars_per_session) for row in rows]
    if options.json:
        json.dump(described, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        print_table(described)
    return 0


def print_table(described: Sequence[dict[str, str | int]]) -> None:
    """Print the features as a table, as wide as its content where the output is no terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(described)} features")
    for column in ("#", *described[0]):
        table.add_column(column, no_wrap=True, justify="right" if column in ("#", "lookback") else "left")
    for number, row in enumerate(described):
        table.add_row(str(number), *map(str, row.values()))
    console = Console()
    Console(width=console.width if console.is_terminal else 200).print(table)


if __name__ == "__main__":
    sys.exit(main())
