"""How a model id is taken apart, and how it finds its row."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cachepoint.core.provider.rules import APIS, SECTIONS, ModelFacts, ModelRef, ModelRule, Rules, parse_model_id
from cachepoint.errors import RulesError

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ACCOUNT = "123456789012"


@pytest.mark.parametrize("geo", ["global", "us", "us-gov", "eu", "apac", "au", "jp", "in", "ca"])
def test_a_geo_prefix_is_taken_off_and_kept(geo: str) -> None:
    assert parse_model_id(f"{geo}.{SONNET}") == ModelRef(f"{geo}.{SONNET}", SONNET, geo)


@pytest.mark.parametrize(
    "model_id",
    [SONNET, "anthropic.claude-sonnet-5", "openai.gpt-5.6-sol", "moonshotai.kimi-k3", "ai21.jamba-1-5-large-v1:0"],
)
def test_an_in_region_id_is_its_own_base(model_id: str) -> None:
    assert parse_model_id(model_id) == ModelRef(model_id, model_id, None)


def test_the_arn_of_a_foundation_model_gives_its_id_and_region() -> None:
    arn = f"arn:aws:bedrock:eu-central-1::foundation-model/{SONNET}"
    assert parse_model_id(arn) == ModelRef(arn, SONNET, None, "eu-central-1")


def test_the_arn_of_a_system_inference_profile_gives_id_geo_and_region() -> None:
    arn = f"arn:aws:bedrock:us-west-2:{ACCOUNT}:inference-profile/us.{SONNET}"
    assert parse_model_id(arn) == ModelRef(arn, SONNET, "us", "us-west-2")


def test_a_foundation_model_in_a_govcloud_region_is_routed_and_priced_there() -> None:
    arn = f"arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/{SONNET}"
    assert parse_model_id(arn) == ModelRef(arn, SONNET, "us-gov", "us-gov-west-1")


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:bedrock:us-east-1:{ACCOUNT}:application-inference-profile/abc123",
        f"arn:aws:bedrock:us-east-1:{ACCOUNT}:provisioned-model/abc123",
        f"arn:aws:bedrock:us-east-1:{ACCOUNT}:imported-model/abc123",
        f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model-deployment/abc123",
        f"arn:aws:bedrock:us-east-1:{ACCOUNT}:default-prompt-router/anthropic.claude:1",
        f"arn:aws:bedrock:us-east-1:{ACCOUNT}:prompt/ABCDEFGHIJ:1",
        f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/mine",
    ],
)
def test_an_arn_that_hides_its_model_is_opaque(arn: str) -> None:
    region = None if "sagemaker" in arn else "us-east-1"
    assert parse_model_id(arn) == ModelRef(arn, None, None, region)
    assert Rules((ModelRule(name="all", pattern=".*"),)).resolve(arn) is None


def test_the_first_row_that_fits_wins() -> None:
    narrow = ModelRule(name="narrow", pattern="sonnet-4-5")
    wide = ModelRule(name="wide", pattern="sonnet")
    assert Rules((narrow, wide)).resolve(SONNET) is narrow
    assert Rules((wide, narrow)).resolve(SONNET) is wide
    assert Rules((narrow, wide)).resolve("meta.llama3-3-70b-instruct-v1:0") is None


def test_the_users_rows_come_before_the_present_ones() -> None:
    present = Rules((ModelRule(name="present", pattern="sonnet"),))
    users = ModelRule(name="mine", pattern="sonnet")
    assert present.extended([users]).resolve(SONNET) is users
    assert present.resolve(SONNET) is present.rows[0]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"pattern": "claude("}, "claude("),
        ({"ttls": ("5m", "10m")}, "10m"),
        ({"sections": ("tools", "documents")}, "documents"),
        ({"minimum": -1}, "minimum is -1"),
        ({"max_checkpoints": -1}, "max_checkpoints is -1"),
        ({"lookback": 0}, "lookback is 0"),
    ],
)
def test_a_wrong_row_is_refused_by_its_name_and_value(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(RulesError, match="'mine'") as refusal:
        ModelRule(**{"name": "mine", "pattern": "x", **wrong})
    assert named in str(refusal.value)


def test_the_least_a_row_may_say_is_taken() -> None:
    row = ModelRule(name="mine", pattern="x", minimum=0, max_checkpoints=0, lookback=1)
    assert (row.minimum, row.max_checkpoints, row.lookback) == (0, 0, 1)


def test_a_row_that_says_no_more_is_a_claude_of_the_documents() -> None:
    """1,024 tokens, four checkpoints of five minutes, in every section, twenty positions back; nothing special."""
    assert ModelRule(name="mine", pattern="x") == ModelRule(
        name="mine", pattern="x", explicit=True, minimum=1024, max_checkpoints=4, ttls=("5m",), sections=SECTIONS,
        lookback=20, max_cached_tokens=None, tokenizer="other", after_text_only=False,
        implicit=False,
    )  # fmt: skip


def test_sections_are_in_wire_order() -> None:
    assert SECTIONS == ("tools", "system", "messages")


def test_a_table_asked_for_ever_new_ids_does_not_grow_without_end() -> None:
    rules = Rules((ModelRule(name="claude", pattern="claude"),))
    for number in range(10_000):
        assert rules.resolve(f"anthropic.claude-{number}") is rules.rows[0]
        assert rules.resolve("meta.llama") is None
    assert 1_000 < len(rules._resolved) <= 5_000


def test_a_row_is_found_though_another_thread_empties_the_memory() -> None:
    # The other thread comes in between keeping a row and returning it, which is where it did harm.
    class Emptied(dict[str, ModelRule | None]):
        def __setitem__(self, model_id: str, row: ModelRule | None) -> None:
            super().__setitem__(model_id, row)
            self.clear()

        def __contains__(self, model_id: object) -> bool:
            found = super().__contains__(model_id)
            self.clear()
            return found

    rules = Rules((ModelRule(name="claude", pattern="claude"),))
    rules.__dict__["_resolved"] = Emptied()
    assert rules.resolve("anthropic.claude-1") is rules.rows[0]
    assert rules.resolve("anthropic.claude-1") is rules.rows[0]


# -- what else is known of a model ----------------------------------------------------------------


def test_a_model_of_which_nothing_is_known_takes_what_most_take() -> None:
    assert ModelFacts() == ModelFacts(
        context_window=None, temperature=True, tool_choices=("auto", "any", "tool"), forced_tool_with_thinking=True,
        thinking="off", thinking_types=("adaptive", "enabled", "disabled"), replays_reasoning="signed",
        effort="high", leading_assistant=False, prefill=True,
        keeps_thinking=False, top_level_cache_control=False, counts_tokens=False,
        system_role=(), system_role_disputed=(), converse=True, end_of_life="",
    )  # fmt: skip
    assert ModelFacts(context_window=1).context_window == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"context_window": 0}, "context_window is 0"),
        ({"thinking": "sometimes"}, "thinking has 'sometimes'; use any of none, off, on, always"),
        ({"tool_choices": ("auto", "none")}, "tool_choices has 'none'; use any of auto, any, tool"),
        ({"thinking_types": ("budget",)}, "thinking_types has 'budget'; use any of adaptive, enabled, disabled"),
        ({"replays_reasoning": "all"}, "replays_reasoning has 'all'; use any of signed, unsigned, none"),
        ({"system_role": ("converse", "chat")}, "system_role has 'chat'; use any of converse"),
        ({"system_role_disputed": ("chat",)}, "system_role_disputed has 'chat'"),
    ],
)
def test_a_wrong_fact_is_refused_by_its_name_and_value(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(RulesError, match="^" + re.escape(named)):
        ModelFacts(**wrong)


def test_a_system_message_is_worth_a_try_where_sources_take_it_or_disagree() -> None:
    facts = ModelFacts(system_role=("converse",), system_role_disputed=("invoke_model",))
    assert [facts.may_take_system_role(api) for api in APIS] == [True, True]
    assert not ModelFacts(system_role=("converse",)).may_take_system_role("invoke_model")
    assert not ModelFacts(system_role_disputed=("converse",)).may_take_system_role("invoke_model")
