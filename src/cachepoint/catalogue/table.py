"""The model table: `data/models.toml` with every fact about a model, and the rows a user adds or overrides.

A user's file, named in CACHEPOINT_RULES, has the same format. A row with the name of a shipped row
changes the fields it gives, where that row stands; any other row comes before the shipped ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal, get_args

from cachepoint._cached import cached_property
from cachepoint.core.planning.policy import did_you_mean
from cachepoint.core.provider.prices import ModelPrices, Rates, TokenPrices
from cachepoint.core.provider.rules import ModelFacts, ModelRef, ModelRule, Rules, Tokenizer, parse_model_id
from cachepoint.errors import ConfigurationError, RulesError

RULES_VARIABLE = "CACHEPOINT_RULES"
PriceZone = Literal["global", "regional", "us-gov"]

# litellm's map prices GovCloud 20% above list, and list is what `global.` profiles cost (P2).
_GOVCLOUD = Decimal("1.2")


def _types(row: type[ModelRule | ModelFacts]) -> dict[str, type]:
    """The type of each field; what is None by default is a number that may be unknown."""
    return {
        each.name: str if each.default is MISSING else int if each.default is None else type(each.default)
        for each in fields(row)
        if each.name != "facts"
    }


# In a file the fields of both stand side by side.
_RULE_FIELDS, _FACT_FIELDS = _types(ModelRule), _types(ModelFacts)
_FIELD_TYPES: Mapping[str, type] = _RULE_FIELDS | _FACT_FIELDS
_DATES = ("checked", "end_of_life")
_TYPE_NAMES: Mapping[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    tuple: "a list of strings",
}
_REMEMBERED = 4096
"""Model ids whose rates are kept at hand: more than an application calls."""
# The file's name, its times of change, size and inode, so that a changed file is read again: one that is still being
# written, or was put in its place, may have the time of the one before.
_UsersFile = tuple[str, int, int, int, int]
_MOST_BYTES = 4 * 2**20
"""A hundred times the shipped table."""
_MOST = 1_000_000_000
"""The largest number in a row: more tokens, positions or USD than any model has, and far from the end of floats."""
_PRICE_FIELDS = ("prices", "long_prompt", "service_tiers")


class _UnreadableError(RulesError):
    """A file could not be read at all."""


@dataclass(frozen=True, slots=True)
class LongPrompt:
    """Above `above` prompt tokens a request costs so many times the price, by direction."""

    above: int
    input: Decimal
    output: Decimal


@dataclass(frozen=True)
class TableRow:
    """One row: a model's rule, with the facts about it, and what its tokens cost.

    `service_tiers` says how many times the price a tier costs, where that is known.
    `users_zones` are the price zones whose prices a user's file gave.
    """

    rule: ModelRule
    prices: Mapping[PriceZone, TokenPrices] = field(default_factory=dict)
    long_prompt: LongPrompt | None = None
    service_tiers: Mapping[str, Decimal] = field(default_factory=dict)
    users_zones: frozenset[PriceZone] = frozenset()

    def prices_in(self, zone: PriceZone) -> ModelPrices | None:
        """The row's prices in a zone; None when unknown."""
        prices = self.prices.get(zone)
        if prices is None and zone == "us-gov" and "global" in self.prices:
            prices = self.prices["global"].times(_GOVCLOUD)
        if prices is None:
            return None
        if self.long_prompt is None:
            return ModelPrices(prices)
        longer = prices.times(self.long_prompt.input, self.long_prompt.output)
        return ModelPrices(prices, ((self.long_prompt.above, longer),))


@dataclass(frozen=True, eq=False)
class ModelTable:
    """The rows in order: the first whose pattern is found in a model id wins."""

    rows: tuple[TableRow, ...]

    @cached_property
    def rules(self) -> Rules:
        """The rows' rules, in order."""
        return Rules(tuple(row.rule for row in self.rows))

    @cached_property
    def _by_rule(self) -> Mapping[ModelRule, TableRow]:
        return {row.rule: row for row in reversed(self.rows)}

    def row(self, model_id: str) -> TableRow | None:
        """The row of a model id, profile id or ARN; None when the ARN is opaque."""
        rule = self.rules.resolve(model_id)
        return None if rule is None else self._by_rule[rule]

    def rates_of(self, model_id: str) -> Rates:
        """Prices of a model relative to its input price; the usual ones when unknown."""
        return _rates(self, model_id)


def load_rules(extra: Iterable[ModelRule] = (), environ: Mapping[str, str] | None = None) -> Rules:
    """The rules of the table, with `extra` before them.

    Raises RulesError when the file that CACHEPOINT_RULES names is missing or wrong.
    """
    return _rules(tuple(extra), _users_file(environ))


def load_table(environ: Mapping[str, str] | None = None) -> ModelTable:
    """The shipped table with the rows of the file that CACHEPOINT_RULES names.

    Raises RulesError when that file is missing or wrong.
    """
    return _table(_users_file(environ))


def model_prices(
    model_id: str, *, region: str | None = None, environ: Mapping[str, str] | None = None
) -> ModelPrices | None:
    """What the table says a model id costs, in USD per million tokens; None when it does not know."""
    row = load_table(environ).row(model_id)
    return None if row is None else row.prices_in(price_zone(parse_model_id(model_id), region))


def rates_of(model_id: str) -> Rates:
    """Prices of a model relative to its input price, from the table; the usual ones when unknown."""
    return load_table().rates_of(model_id)


@lru_cache(maxsize=_REMEMBERED)
def _rates(table: ModelTable, model_id: str) -> Rates:
    row = table.row(model_id)
    found = None if row is None else row.prices_in(price_zone(parse_model_id(model_id)))
    if found is None or not found.standard.input:
        return Rates()
    prices = found.standard

    def share(price: Any, otherwise: float) -> float:
        return otherwise if price is None else float(price / prices.input)

    return Rates(share(prices.cache_read, 0.1), share(prices.cache_write_5m, 1.25), share(prices.cache_write_1h, 2.0))


def price_zone(ref: ModelRef, region: str | None = None) -> PriceZone:
    """Where a model id is priced: only `global.` is list price, and GovCloud has its own (P2).

    `region` is the client's; it decides for an id that does not say where it is served.
    """
    if ref.geo == "global":
        return "global"
    if ref.geo == "us-gov" or (ref.geo is None and (region or "").startswith("us-gov-")):
        return "us-gov"
    return "regional"


def _users_file(environ: Mapping[str, str] | None) -> _UsersFile | None:
    name = (os.environ if environ is None else environ).get(RULES_VARIABLE)
    if not name:
        return None
    try:
        found = Path(name).stat()
        why = None if S_ISREG(found.st_mode) else "no regular file"  # to read a pipe may take for ever
    except OSError as problem:
        why = problem.strerror
    except ValueError as problem:  # a NUL in the name
        why = str(problem)
    if why is not None:
        raise RulesError(
            f"{RULES_VARIABLE} names {name!r}, which cannot be read ({why}); name a readable TOML file or unset it"
        )
    return name, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


@lru_cache(maxsize=64)
def _rules(extra: tuple[ModelRule, ...], users_file: _UsersFile | None) -> Rules:
    rules = _table(users_file).rules
    return rules.extended(extra) if extra else rules


def _table(users_file: _UsersFile | None) -> ModelTable:
    found = _made(users_file)
    if isinstance(found, RulesError):
        raise RulesError(str(found))
    return found


@lru_cache(maxsize=8)
def _made(users_file: _UsersFile | None) -> ModelTable | RulesError:
    """The table, or why there is none: a wrong file is not read again for each call either."""
    try:
        return _read_table(users_file)
    except _UnreadableError:  # which may pass without a change of the file
        raise
    except RulesError as problem:
        return problem


def _read_table(users_file: _UsersFile | None) -> ModelTable:
    if users_file is None:
        from importlib.resources import files

        text = files("cachepoint.catalogue").joinpath("data/models.toml").read_text("utf-8")
        return ModelTable(tuple(_row(raw, where) for raw, where in _raw_rows(text, "models.toml")))
    name = users_file[0]
    shipped = {row.rule.name: row for row in _table(None).rows}
    added: list[TableRow] = []
    for raw, where in _raw_rows(_read(name), name):
        changed = shipped.get(raw["name"])
        row = _row(raw, where, changed, users=True)
        if changed is None:
            added.append(row)
        else:
            shipped[row.rule.name] = row
    return ModelTable((*added, *shipped.values()))


def _read(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise _UnreadableError(f"{name}: cannot be read ({problem}); give a TOML file in UTF-8") from None
    if len(content) > _MOST_BYTES:
        raise RulesError(
            f"{name}: more than {_MOST_BYTES:,} bytes; give the rows that change, and leave out the others"
        )
    return text


def _raw_rows(text: str, file: str) -> list[tuple[dict[str, Any], str]]:
    import tomllib

    try:
        content = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as problem:  # numbers of thousands of digits and lists in lists among them
        why = "nested too deeply" if isinstance(problem, RecursionError) else problem
        raise RulesError(f"{file}: no TOML ({why}); see cachepoint's models.toml for the format") from None
    rows = content.pop("model", [])
    if content or not isinstance(rows, list) or not all(isinstance(raw, dict) for raw in rows):
        wrong = next(iter(content), "model")
        raise RulesError(f"{file}: {wrong!r} at top level; write every row as a [[model]] table")
    named = []
    for number, raw in enumerate(rows, 1):
        name = raw.get("name")
        if not isinstance(name, str) or not name:
            raise RulesError(f"{file}: row {number}: name is {name!r}; give the row a name, or the shipped row's")
        named.append((raw, f"{file}: row {name!r}"))
    return named


def _row(raw: Mapping[str, Any], where: str, base: TableRow | None = None, *, users: bool = False) -> TableRow:
    """A row from what a file gives, over the row it changes."""
    known = (*_FIELD_TYPES, *_PRICE_FIELDS)
    for name in raw:
        if name not in known:
            raise RulesError(
                f"{where}: unknown field {name!r}{did_you_mean(name, known)}; use any of {', '.join(known)}"
            )
    if base is None and "pattern" not in raw:
        raise RulesError(f"{where}: no shipped row has this name and it has no pattern; give it one")
    prices = _prices(raw.get("prices", {}), where)
    rule = _rule(raw, where, None if base is None else base.rule)
    row = base or TableRow(rule)
    return TableRow(
        rule=rule,
        prices={**row.prices, **prices},
        long_prompt=_long_prompt(raw["long_prompt"], where) if "long_prompt" in raw else row.long_prompt,
        service_tiers=_factors(raw["service_tiers"], f"{where}: service_tiers")
        if "service_tiers" in raw
        else row.service_tiers,
        users_zones=row.users_zones | frozenset(prices) if users else frozenset(),
    )


def _rule(raw: Mapping[str, Any], where: str, base: ModelRule | None) -> ModelRule:
    given: dict[str, Any] = {name: _field(name, value, where) for name, value in raw.items() if name in _FIELD_TYPES}
    facts = {name: given.pop(name) for name in _FACT_FIELDS if name in given}
    try:
        if base is None:
            return ModelRule(**given, facts=ModelFacts(**facts))
        return replace(base, **given, facts=replace(base.facts, **facts))
    except RulesError as problem:
        raise RulesError(f"{where}: {problem}") from None


def _field(name: str, value: object, where: str) -> object:
    kind = _FIELD_TYPES[name]
    if kind is tuple and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if name in _DATES and isinstance(value, date):
        return value.isoformat()
    if name == "tokenizer" and value not in get_args(Tokenizer):
        raise RulesError(f"{where}: tokenizer is {value!r}; use any of {', '.join(get_args(Tokenizer))}")
    # `type` and not `isinstance`: TOML's true is no number.
    if type(value) is not kind:
        raise RulesError(f"{where}: {name} is {value!r:.80}; give {_TYPE_NAMES[kind]}")
    if isinstance(value, int) and not 0 <= value <= _MOST:
        raise RulesError(f"{where}: {name} is {value!r:.20}; give a number of tokens or positions, 0 to {_MOST:,}")
    return value


def _prices(raw: object, where: str) -> dict[PriceZone, TokenPrices]:
    zones: tuple[PriceZone, ...] = get_args(PriceZone)
    prices: dict[PriceZone, TokenPrices] = {}
    for zone, table in _mapping(raw, f"{where}: prices").items():
        known = next((each for each in zones if each == zone), None)
        if known is None:
            raise RulesError(f"{where}: prices.{zone} is no price zone; use any of {', '.join(zones)}")
        place = f"{where}: prices.{zone}"
        try:
            prices[known] = TokenPrices.of(_mapping(table, place), place)
        except ConfigurationError as problem:
            raise RulesError(str(problem)) from None
        for each in fields(TokenPrices):
            price = getattr(prices[known], each.name)
            if price is not None and price > _MOST:
                raise RulesError(f"{place}.{each.name} is {price:.3g}; give USD per million tokens")
    return prices


def _long_prompt(raw: object, where: str) -> LongPrompt:
    place = f"{where}: long_prompt"
    given = _mapping(raw, place)
    above = given.get("above")
    if set(given) != {"above", "input", "output"} or type(above) is not int or above < 0:
        raise RulesError(f"{place} is {dict(given)!r}; give above in tokens, and input and output as factors")
    factors = _factors({name: given[name] for name in ("input", "output")}, place)
    return LongPrompt(above, factors["input"], factors["output"])


def _factors(raw: object, place: str) -> dict[str, Decimal]:
    factors = {}
    for name, value in _mapping(raw, place).items():
        if type(value) not in (int, Decimal) or not Decimal(value).is_finite() or not 0 < value <= _MOST:
            raise RulesError(f"{place}.{name} is {value!r}; give how many times the price it costs")
        factors[name] = Decimal(value)
    return factors


def _mapping(raw: object, place: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise RulesError(f"{place} is {raw!r}; give a table")
    return raw
