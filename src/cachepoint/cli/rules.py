"""`cachepoint rules`: the model table, or one model's row with every fact and its source."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cachepoint.errors import RulesError

if TYPE_CHECKING:
    from cachepoint.catalogue.table import TableRow

_OF_A_PROVIDER = re.compile(r"[a-z0-9]+\.[a-z]")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "rules",
        help="which model takes which checkpoints, and where that is known from",
        description="The model table, with the rows of the file that CACHEPOINT_RULES names; or one model's row.",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a model id, inference-profile id or ARN, or a name in the table"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table or the row."""
    from cachepoint.catalogue.table import load_table

    table = load_table()
    rows = table.rows if options.model is None else (_row(options.model),)
    if options.json:
        print(json.dumps([_plain(row) for row in rows], indent=2, default=str))
    elif options.model is None:
        print(_overview(rows))
    else:
        print(_details(rows[0]))
    return 0


def _row(model: str) -> TableRow:
    from cachepoint.catalogue.table import load_table
    from cachepoint.core.provider.rules import parse_model_id

    table = load_table()
    named = next((row for row in table.rows if row.rule.name.lower() == model.lower()), None)
    if named is not None:
        return named
    row = table.row(model)
    if row is None:
        raise RulesError(
            f"no row for {model!r}: an ARN that hides its model is not looked up here; give the base model's id"
        )
    if not _OF_A_PROVIDER.match(parse_model_id(model).base or ""):
        raise RulesError(
            f"{model!r} is neither a name in the table nor a Bedrock model id: those name the provider first, such as "
            "anthropic.claude-sonnet-4-6 or us.amazon.nova-lite-v1:0"
        )
    return row


def _overview(rows: tuple[TableRow, ...]) -> str:
    from cachepoint.cli.columns import columns

    header = ("model", "minimum", "points", "TTL", "sections", "lookback", "confidence", "checked", "ends")
    return columns((_cells(row) for row in rows), header=header)


def _cells(row: TableRow) -> tuple[str, ...]:
    rule = row.rule
    if not rule.explicit:
        return (rule.name, "-", "-", "-", "no checkpoints", "-", rule.confidence, rule.checked, rule.facts.end_of_life)
    return (
        rule.name,
        f"{rule.minimum:,}",
        str(rule.max_checkpoints),
        " ".join(rule.ttls),
        " ".join(rule.sections),
        str(rule.lookback),
        rule.confidence,
        rule.checked,
        rule.facts.end_of_life,
    )


def _details(row: TableRow) -> str:
    from cachepoint.cli.columns import columns, paragraph
    from cachepoint.core.provider.prices import plain

    values = _fields(row)
    sentences = {name: values.pop(name) for name in ("source", "disagreement")}
    lines = [columns((name, _text(value)) for name, value in values.items())]
    lines += [paragraph(f"{name}: {text}", indent="  ") for name, text in sentences.items() if text]
    for zone, prices in row.prices.items():
        amounts = ", ".join(f"{name} {plain(price)}" for name, price in asdict(prices).items() if price is not None)
        lines.append(f"USD per million tokens, {zone}: {amounts}")
    return "\n".join(lines)


def _fields(row: TableRow) -> dict[str, Any]:
    """The fields of a row by the names that a file gives them."""
    values = asdict(row.rule)
    facts: dict[str, Any] = values.pop("facts")
    return values | facts


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none known" if value is None else str(value) or "-"


def _plain(row: TableRow) -> dict[str, Any]:
    return _fields(row) | {"prices": {zone: asdict(prices) for zone, prices in row.prices.items()}}
