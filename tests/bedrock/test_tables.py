"""The model table says what the collected facts say, and what the user says before that."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields, replace
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from cachepoint.catalogue.table import load_rules, load_table, model_prices
from cachepoint.core.provider.prices import ModelPrices
from cachepoint.core.provider.rules import ModelFacts, ModelRule
from cachepoint.errors import RulesError

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-pro-v1:0"
CLASSES = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
TOKENIZERS = {"old": "claude", "new": "claude-new", "nova": "nova"}
FACTS = Path(__file__).parents[2].parent / "shared" / "facts" / "models.json"

# The collected facts are of 2026-11-22; the model card of Nova 2 Lite was read later.
_KNOWN_BETTER_SINCE = {"Amazon Nova 2 Lite": "medium"}


def known_models() -> list[Any]:
    if not FACTS.exists():
        skip = pytest.mark.skip(reason="../shared/facts/models.json is not here")
        return [pytest.param({}, id="no facts", marks=skip)]
    models = json.loads(FACTS.read_text(), parse_float=Decimal)["models"]
    return [pytest.param(model, id=model["name"]) for model in models if model["model_id"]]


def classes(prices: ModelPrices | None) -> dict[str, Decimal | None] | None:
    return None if prices is None else {name: getattr(prices.standard, name) for name in CLASSES}


def rules_file(folder: Path, text: str) -> dict[str, str]:
    """The environment of a user whose CACHEPOINT_RULES names a file with this text."""
    file = folder / "rules.toml"
    file.write_text(text, "utf-8")
    return {"CACHEPOINT_RULES": str(file)}


# -- the shipped rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("fact", known_models())
def test_every_known_model_follows_its_facts(fact: dict[str, Any]) -> None:
    rule = load_rules(environ={}).resolve(fact["model_id"])
    assert rule is not None
    assert rule.explicit is bool(fact["explicit_cachepoint"])
    assert rule.minimum == (fact["min_tokens"] or 0)
    assert rule.max_cached_tokens == fact.get("max_cached_tokens")
    confidence = _KNOWN_BETTER_SINCE.get(fact["name"], fact["min_tokens_confidence"])
    assert (rule.provider, rule.confidence) == (fact["provider"], confidence)
    assert rule.tokenizer == TOKENIZERS.get(fact.get("tokenizer", ""), "other")
    if rule.explicit:
        assert rule.max_checkpoints == fact["max_checkpoints"]
        assert list(rule.ttls) == fact["ttls"]
        assert set(rule.sections) == set(fact["fields"])
    else:
        assert (rule.max_checkpoints, rule.ttls, rule.sections) == (0, (), ())


@pytest.mark.parametrize("fact", known_models())
def test_every_known_model_costs_what_its_facts_say(fact: dict[str, Any]) -> None:
    for geo, zone in (("global.", "global"), ("us.", "regional_or_geo")):
        listed = fact["prices_usd_per_mtok"].get(zone)
        expected = listed and {name: None if listed[name] is None else Decimal(listed[name]) for name in CLASSES}
        if expected and expected["cache_write_5m"] is None:
            expected["cache_write_5m"] = expected["input"]  # P4: such a write is billed as input
        prices = model_prices(geo + fact["model_id"], environ={})
        assert classes(prices) == expected
        for threshold, longer in ((fact.get("long_prompt_tiers") or {}).get(zone) or {}).items():
            assert prices is not None
            assert prices.tiers[0][0] == int(threshold)
            assert all(getattr(prices.tiers[0][1], name) == Decimal(price) for name, price in longer.items())


def test_every_row_says_where_it_comes_from() -> None:
    for row in load_rules(environ={}).rows:
        assert row.source
        assert row.checked.startswith("2026-")
        assert row.confidence in {"high", "medium", "low"}


@pytest.mark.parametrize("row", load_table({}).rows, ids=lambda row: row.rule.name)
def test_a_geo_profile_costs_list_price_or_a_tenth_more(row: Any) -> None:
    if {"global", "regional"} <= row.prices.keys():
        global_, regional = row.prices["global"], row.prices["regional"]
        assert regional in (global_, global_.times(Decimal("1.1")))


@pytest.mark.parametrize("row", load_table({}).rows, ids=lambda row: row.rule.name)
def test_claude_prices_keep_their_multipliers(row: Any) -> None:
    """P1: 1.25x for a 5-minute write, 2x for an hour, and the hour only where the model takes it."""
    if row.rule.provider != "anthropic":
        return
    for prices in row.prices.values():
        assert prices.cache_write_5m == prices.input * Decimal("1.25")
        assert prices.cache_write_1h == (prices.input * 2 if "1h" in row.rule.ttls else None)


@pytest.mark.parametrize(
    "model_id",
    [
        "meta.llama3-3-70b-instruct-v1:0",
        "us.deepseek.r1-v1:0",
        "openai.gpt-oss-120b-1:0",
        "anthropic.claude-3-haiku-20240307-v1:0",
        "anthropic.claude-v2:1",
        "anthropic.claude-instant-v1",
        "moonshotai.kimi-k2-thinking",
        "zai.glm-5.3",
        "amazon.titan-text-express-v1",
    ],
)
def test_a_model_without_explicit_caching_gets_no_checkpoint(model_id: str) -> None:
    rule = load_rules(environ={}).resolve(model_id)
    assert rule is not None
    assert not rule.explicit


def test_an_unknown_newer_claude_gets_what_every_caching_claude_takes() -> None:
    rule = load_rules(environ={}).resolve("us.anthropic.claude-opus-6-1")
    assert rule is not None
    assert (rule.explicit, rule.minimum, rule.ttls) == (True, 4096, ("5m",))


@pytest.mark.parametrize(
    ("model_id", "name"),
    [
        ("anthropic.claude-opus-4-20250514-v1:0", "Claude Opus 4"),
        ("anthropic.claude-opus-4-1-20250805-v1:0", "Claude Opus 4.1"),
        ("anthropic.claude-sonnet-5", "Claude Sonnet 5"),
        ("anthropic.claude-sonnet-5-v1:0", "Claude Sonnet 5"),
        ("anthropic.claude-sonnet-5-5", "Claude Sonnet 5.5"),
        ("amazon.nova-pro-v1:0:300k", "Amazon Nova Pro"),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}", "Claude Sonnet 4.5"),
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/in.{SONNET}", "Claude Sonnet 4.5"),
        ("xy.anthropic.claude-sonnet-5", "Claude Sonnet 5"),
        ("global.moonshotai.kimi-k3.1", "Moonshot Kimi K3.1"),
    ],
)
def test_similar_ids_do_not_take_each_others_row(model_id: str, name: str) -> None:
    rule = load_rules(environ={}).resolve(model_id)
    assert rule is not None
    assert rule.name == name


def facts(model_id: str) -> ModelFacts:
    rule = load_rules(environ={}).resolve(model_id)
    assert rule is not None
    return rule.facts


def test_invoke_model_takes_late_system_messages_where_anthropic_says_so() -> None:
    rows = load_rules(environ={}).rows
    assert {row.name for row in rows if "invoke_model" in row.facts.system_role} == {
        "Claude Fable 5.1", "Claude Mythos 5.1", "Claude Fable 5", "Claude Mythos 5", "Claude Opus 5",
        "Claude Opus 4.8",
    }  # fmt: skip
    assert not any("converse" in row.facts.system_role for row in rows)


@pytest.mark.parametrize(
    ("model_id", "tried"),
    [("anthropic.claude-opus-4-8", True), ("anthropic.claude-sonnet-5", False), ("anthropic.claude-opus-4-7", False)],
)
def test_converse_is_tried_with_late_system_messages_where_sources_disagree(model_id: str, tried: bool) -> None:
    assert facts(model_id).may_take_system_role("converse") == tried


@pytest.mark.parametrize(
    ("model_id", "thinking", "effort"),
    [
        ("us.anthropic.claude-fable-5-1", "always", "high"),
        ("us.anthropic.claude-opus-5-5", "always", "medium"),
        ("us.anthropic.claude-sonnet-5-5", "always", "high"),
        ("us.anthropic.claude-opus-5", "on", "high"),
        ("us.anthropic.claude-sonnet-5", "on", "high"),
        ("us.anthropic.claude-haiku-5-5", "on", "medium"),
        ("us.anthropic.claude-opus-4-8", "off", "high"),
        ("us.anthropic.claude-sonnet-4-6", "off", "high"),
        ("us.amazon.nova-2-lite-v1:0", "off", "high"),
    ],
)
def test_what_a_request_gets_that_says_nothing_of_thinking_and_effort(
    model_id: str, thinking: str, effort: str
) -> None:
    assert (facts(model_id).thinking, facts(model_id).effort) == (thinking, effort)


@pytest.mark.parametrize(
    ("model_id", "tokens"),
    [
        ("us.anthropic.claude-sonnet-4-6", 1_000_000),
        (SONNET, 200_000),
        ("anthropic.claude-3-haiku-20240307-v1:0", 200_000),
        ("anthropic.claude-v2:1", 200_000),
        ("us.amazon.nova-premier-v1:0", 1_000_000),
        ("amazon.nova-micro-v1:0", 128_000),
        ("amazon.nova-pro-v1:0", 300_000),
        ("us.meta.llama4-scout-17b-instruct-v1:0", 3_500_000),
        ("meta.llama3-8b-instruct-v1:0", 8_192),
        ("us.meta.llama3-3-70b-instruct-v1:0", 128_000),
    ],
)
def test_how_many_tokens_fit_into_a_model(model_id: str, tokens: int | None) -> None:
    assert facts(model_id).context_window == tokens


def test_a_forced_tool_is_refused_by_claude_from_fable_5_1_on_but_for_haiku() -> None:
    refusing = {row.name for row in load_rules(environ={}).rows if "any" not in row.facts.tool_choices}
    assert {"Claude Fable 5.1", "Claude Opus 5.5", "Claude Sonnet 5.5"} <= refusing
    assert not refusing & {"Claude Fable 5", "Claude Opus 5", "Claude Haiku 5.5"}


@pytest.mark.parametrize(
    ("model_id", "known"),
    [
        ("anthropic.claude-3-opus-20240229-v1:0", {"prefill", "counts_tokens"}),
        ("anthropic.claude-v2:1", {"prefill", "counts_tokens"}),
        (SONNET, {"prefill", "counts_tokens"}),
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", {"prefill", "keeps_thinking", "counts_tokens"}),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", {"prefill", "counts_tokens"}),
        ("us.anthropic.claude-sonnet-4-6", {"keeps_thinking", "counts_tokens"}),
        ("us.anthropic.claude-opus-4-7", {"keeps_thinking", "top_level_cache_control"}),
        ("us.anthropic.claude-haiku-5-5", {"top_level_cache_control"}),
        ("us.anthropic.claude-opus-6-1", {"keeps_thinking", "top_level_cache_control"}),
        ("us.amazon.nova-pro-v1:0", {"prefill"}),
    ],
)
def test_what_a_models_api_takes_and_keeps(model_id: str, known: set[str]) -> None:
    named = ("prefill", "keeps_thinking", "top_level_cache_control", "counts_tokens")
    assert {name for name in named if getattr(facts(model_id), name)} == known


@pytest.mark.parametrize(
    ("model_id", "day"),
    [
        ("us.anthropic.claude-3-5-haiku-20241022-v1:0", "2026-06-19"),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", "2026-04-28"),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", "2026-07-30"),
        ("us.anthropic.claude-3-5-sonnet-20240620-v1:0", "2026-03-01"),
        ("us.anthropic.claude-opus-4-20250514-v1:0", "2026-05-31"),
        ("us.amazon.nova-premier-v1:0", "2026-09-14"),
        ("us.anthropic.claude-sonnet-4-6", ""),
    ],
)
def test_when_a_model_ends(model_id: str, day: str) -> None:
    assert facts(model_id).end_of_life == day


def test_models_without_converse_are_marked() -> None:
    assert [facts(f"openai.gpt-{version}").converse for version in ("5.4", "5.5", "5.6-sol")] == [False, False, True]


def test_openai_models_cache_nothing_on_their_own_through_converse() -> None:
    assert not any(row.implicit for row in load_rules(environ={}).rows if row.provider == "openai")


@pytest.mark.parametrize(
    "model_id",
    ["xai.grok-4.3", "openai.gpt-5.6-cyber", "openai.gpt-daybreak-blue-5.6-sol", "amazon.nova-2-pro-preview"],
)
def test_an_id_that_is_priced_elsewhere_has_a_row_of_its_own(model_id: str) -> None:
    rule = load_rules(environ={}).resolve(f"us.{model_id}")
    assert rule is not None
    assert rule.name != "everything else"
    assert not rule.explicit


# -- where a call is priced -----------------------------------------------------------------------


def input_price(model_id: str, region: str | None = None) -> Decimal | None:
    prices = model_prices(model_id, region=region, environ={})
    return None if prices is None else prices.standard.input


def test_only_global_profiles_cost_list_price() -> None:
    assert input_price(f"global.{SONNET}") == 3
    for model_id in (SONNET, f"us.{SONNET}", f"jp.{SONNET}", f"arn:aws:bedrock:eu-west-1::foundation-model/{SONNET}"):
        assert input_price(model_id) == Decimal("3.3")


def test_govcloud_costs_a_fifth_over_list_however_it_is_named() -> None:
    gov = "us-gov-west-1"
    for model_id, region in (
        (f"us-gov.{SONNET}", None),
        (SONNET, gov),
        (f"arn:aws-us-gov:bedrock:{gov}::foundation-model/{SONNET}", None),
    ):
        assert input_price(model_id, region) == Decimal("3.6")
    assert input_price(f"us-gov.{NOVA}") == Decimal("0.96")


def test_a_price_nobody_published_is_unknown() -> None:
    assert input_price("us-gov.anthropic.claude-mythos-5") is None
    assert input_price("global.amazon.nova-pro-v1:0") is None
    assert input_price("meta.llama3-3-70b-instruct-v1:0") is None
    assert input_price("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc") is None


# -- the user's rows ------------------------------------------------------------------------------


def test_a_row_in_code_comes_before_the_table() -> None:
    mine = ModelRule(name="mine", pattern="claude-sonnet-4-5", minimum=2048)
    assert load_rules([mine], environ={}).resolve(SONNET) is mine


def test_a_row_in_the_users_file_comes_before_the_table_and_after_code(tmp_path: Path) -> None:
    environ = rules_file(tmp_path, "[[model]]\nname = 'filed'\npattern = 'sonnet'\nttls = ['5m']\nminimum = 1500\n")
    filed = load_rules(environ=environ).resolve(SONNET)
    assert filed is not None
    assert (filed.name, filed.minimum, filed.ttls) == ("filed", 1500, ("5m",))
    mine = ModelRule(name="mine", pattern="claude-sonnet-4-5")
    assert load_rules([mine], environ=environ).resolve(SONNET) is mine


def test_a_row_with_a_shipped_name_changes_what_it_gives_where_that_row_stands(tmp_path: Path) -> None:
    changes = (
        "[[model]]\nname = 'Claude Sonnet 4.5'\nminimum = 4096\n\n[[model]]\nname = 'everything else'\nminimum = 7\n"
    )
    environ = rules_file(tmp_path, changes)
    shipped, changed = load_rules(environ={}), load_rules(environ=environ)
    assert [row.name for row in changed.rows] == [row.name for row in shipped.rows]
    before, after = shipped.resolve(SONNET), changed.resolve(SONNET)
    assert before is not None
    assert after is not None
    assert (after.minimum, after.ttls, after.source) == (4096, before.ttls, before.source)


def test_a_row_changes_any_fact_about_a_model(tmp_path: Path) -> None:
    changes = (
        "[[model]]\nname = 'Claude Opus 4.8'\nsystem_role = ['converse', 'invoke_model']\nsystem_role_disputed = []\n"
        "thinking = 'on'\neffort = 'low'\ncontext_window = 2000000\nend_of_life = 2027-12-31\n"
    )
    changed = load_rules(environ=rules_file(tmp_path, changes)).resolve("anthropic.claude-opus-4-8")
    assert changed is not None
    assert changed.facts == replace(
        facts("anthropic.claude-opus-4-8"), system_role=("converse", "invoke_model"), system_role_disputed=(),
        thinking="on", effort="low", context_window=2_000_000, end_of_life="2027-12-31",
    )  # fmt: skip
    assert (changed.minimum, changed.ttls) == (1024, ("5m", "1h"))


def test_the_users_prices_replace_those_of_their_zone(tmp_path: Path) -> None:
    prices = "prices.regional = { input = 2.7, output = 13.5, cache_read = 0.27 }"
    environ = rules_file(tmp_path, f"[[model]]\nname = 'Claude Sonnet 4.5'\n{prices}\n")
    regional = model_prices(f"eu.{SONNET}", environ=environ)
    assert regional is not None
    assert (regional.standard.input, regional.standard.cache_write_5m) == (Decimal("2.7"), None)
    assert model_prices(f"global.{SONNET}", environ=environ) == model_prices(f"global.{SONNET}", environ={})


def test_the_example_in_the_documentation_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text("utf-8")
    environ = rules_file(tmp_path, page.split("```toml\n")[1].split("```")[0])
    rules = load_rules(environ=environ)
    opus, ours = rules.resolve("anthropic.claude-opus-4-7"), rules.resolve("us.anthropic.claude-ours-v1:0")
    assert opus is not None
    assert ours is not None
    assert (opus.minimum, ours.name, ours.ttls) == (2048, "our fine-tuned model", ("5m", "1h"))
    assert model_prices("us.anthropic.claude-ours-v1:0", environ=environ) is not None


def test_the_environment_of_the_process_is_asked_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = rules_file(tmp_path, "[[model]]\nname = 'filed'\npattern = 'claude-sonnet'\n")
    monkeypatch.setenv("CACHEPOINT_RULES", environ["CACHEPOINT_RULES"])
    rule = load_rules().resolve(SONNET)
    assert rule is not None
    assert rule.name == "filed"


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    environ = rules_file(tmp_path, "[[model]]\nname = 'first'\npattern = 'sonnet'\n")
    assert load_rules(environ=environ) is load_rules(environ=environ)
    file = Path(environ["CACHEPOINT_RULES"])
    file.write_text("[[model]]\nname = 'second'\npattern = 'sonnet'\n", "utf-8")
    os.utime(file, ns=(1, 1))
    assert load_rules(environ=environ).rows[0].name == "second"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[model]\n", "no TOML"),
        ("[model]\nname = 'x'\n", "[[model]]"),
        ("[[models]]\nname = 'x'\n", "'models'"),
        ("model = ['x']\n", "[[model]]"),
        ("[[model]]\npattern = 'x'\n", "row 1: name"),
        ("[[model]]\nname = 'mine'\n", "'mine': no shipped row"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nminimun = 1\n", "'minimun'"),
        ("[[model]]\nname = 'mine'\npattern = 'x('\n", "'x('"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nminimum = '1024'\n", "minimum is '1024'; give a whole number"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nminimum = true\n", "minimum is True"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nexplicit = 1\n", "give true or false"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nttls = '5m'\n", "give a list of strings"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nttls = ['2h']\n", "'2h'"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\ntokenizer = 'gpt'\n", "tokenizer is 'gpt'"),
        (
            "[[model]]\nname = 'mine'\npattern = 'x'\nthinking = 'maybe'\n",
            "thinking has 'maybe'; use any of none, off, on, always",
        ),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nthinking = true\n", "thinking is True; give a string"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nsystem_role = true\n", "give a list of strings"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nsystem_role = ['chat']\n", "system_role has 'chat'"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\ncontext_window = 0\n", "context_window is 0"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nfacts = { thinking = 'on' }\n", "unknown field 'facts'"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nprices.mars = { input = 1, output = 1 }\n", "prices.mars"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nprices.global = { input = 1 }\n", "prices.global: no 'output'"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nprices = 3\n", "prices is 3; give a table"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nlong_prompt = { above = 10 }\n", "long_prompt"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nlong_prompt = { above = 1, input = 0, output = 1 }\n", "input is 0"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nservice_tiers = { flex = 'half' }\n", "flex is 'half'"),
        ("[[model]]\nname = 'mine'\npatt", "no TOML"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nminimun = 1\n", "did you mean 'minimum'?"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nmax_cached_tokens = -1\n", "max_cached_tokens is -1; give a number"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nminimum = 1" + "0" * 400 + "\n", "minimum is 1000"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nminimum = " + "9" * 5000 + "\n", "no TOML"),
        ("x = " + "[" * 100_000 + "\n", "nested too deeply"),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nprices.global = { input = nan, output = 1 }\n", "input"),
        (
            "[[model]]\nname = 'mine'\npattern = 'x'\nprices.global = { input = 1e999999, output = 1 }\n",
            "global.input is",
        ),
        ("[[model]]\nname = 'mine'\npattern = 'x'\nservice_tiers = { flex = 1e400 }\n", "flex is"),
        ("#" * (4 * 2**20 + 1), "more than 4,194,304 bytes"),
    ],
)
def test_a_wrong_file_is_refused_by_file_row_and_field(tmp_path: Path, text: str, named: str) -> None:
    environ = rules_file(tmp_path, text)
    with pytest.raises(RulesError) as refusal:
        load_rules(environ=environ)
    assert named in str(refusal.value)
    assert environ["CACHEPOINT_RULES"] in str(refusal.value)


def test_a_missing_file_is_refused_by_the_variables_name(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=r"CACHEPOINT_RULES names .*absent\.toml"):
        load_rules(environ={"CACHEPOINT_RULES": str(tmp_path / "absent.toml")})


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "a\0b"):
        with pytest.raises(RulesError, match=r"CACHEPOINT_RULES names .*cannot be read \("):
            load_rules(environ={"CACHEPOINT_RULES": str(tmp_path / name)})


def test_a_file_put_in_the_place_of_another_of_the_same_time_is_read(tmp_path: Path) -> None:
    environ = rules_file(tmp_path, "[[model]]\nname = 'first'\npattern = 'sonnet'\n")
    file = Path(environ["CACHEPOINT_RULES"])
    os.utime(file, ns=(1, 1))
    assert load_rules(environ=environ).rows[0].name == "first"
    (tmp_path / "new").write_text("[[model]]\nname = 'other'\npattern = 'sonnet'\n", "utf-8")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").replace(file)
    assert load_rules(environ=environ).rows[0].name == "other"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RulesError, match="UTF-8"):
        load_rules(environ={"CACHEPOINT_RULES": str(file)})


def test_every_fact_has_a_source_and_a_date() -> None:
    """In the head of the table for all rows, and for each row in the row."""
    text = files("cachepoint.catalogue").joinpath("data/models.toml").read_text("utf-8")
    explained = re.split(r"\n# (?=[a-z])", text[: text.index("[[model]]")])
    undated = {
        field.name
        for field in fields(ModelFacts)
        if not any(re.search(rf"\b{field.name}\b.*20\d\d-\d\d-\d\d", each, re.DOTALL) for each in explained)
    }
    assert not undated
    for row in load_rules(environ={}).rows:
        assert row.source, row.name
        assert re.fullmatch(r"2026-\d\d-\d\d", row.checked), row.name


def test_the_page_on_rules_explains_every_fact() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text("utf-8")
    assert not {field.name for field in fields(ModelFacts) if f"`{field.name}`" not in page}
