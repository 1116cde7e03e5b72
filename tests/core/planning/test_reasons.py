"""Reasons are codes; their prose is made when somebody reads it, and warnings of a kind have one key."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from cachepoint.core.planning.reasons import (
    _CAUSES,
    _PLACED,
    _REPAIRED,
    Cause,
    HeldCode,
    Obstacle,
    Placed,
    PlacedCode,
    Rejected,
    Repair,
    RepairCode,
)  # fmt: skip


def test_there_is_a_sentence_for_every_code_and_a_code_for_every_sentence() -> None:
    assert set(get_args(Cause)) == set(_CAUSES)
    assert set(get_args(Cause)) - set(get_args(HeldCode)) == {"ttl_order", "ttl_unknown"}
    assert set(get_args(Obstacle)) < set(get_args(HeldCode))
    assert set(get_args(PlacedCode)) == set(_PLACED)
    assert set(get_args(RepairCode)) == set(_REPAIRED)


@pytest.mark.parametrize("code", get_args(HeldCode))
def test_every_reason_not_to_use_a_place_has_a_sentence(code: Any) -> None:
    place = Rejected("system[0]", code, tokens=812.4, limit=1024, visits=0.25)
    assert len(place.why) > 10
    assert "{" not in place.why
    assert place.to_dict() == {"path": "system[0]", "reason": code, "why": place.why}


def test_a_figure_that_is_not_given_is_none() -> None:
    assert Placed("marked") == ("marked", "inner", 0, 0.0, 0.0, 0.0, "5m", 0, "")
    assert Rejected("", "mode_off") == ("", "mode_off", 0.0, 0, 0.0, "")
    assert Repair("left_out", "", "refused") == ("left_out", "", "refused", "", 0, "5m")


def test_figures_stand_in_the_sentence() -> None:
    assert Rejected("", "below_minimum", 812.4, 1024).why == "about 812 tokens, below the minimum of 1024"
    assert Rejected("", "above_maximum", 21000, 20480).why == "about 21000 tokens, above the 20480 the model caches"
    assert Rejected("", "no_return_expected", visits=0.25).why.startswith("about 0.2 more visits expected, too few")
    assert Rejected("", "below_minimum", text="as it was printed").why == "as it was printed"


@pytest.mark.parametrize(
    ("reason", "prose"),
    [
        (Placed("marked"), "you marked it"),
        (
            Placed("expected_again", "system_end", 3, 4.04, 0.8),
            "end of system: seen 3 times before, about 4.0 more visits expected, 80% within 5m",
        ),
        (
            Placed("expected_again", "tools_end", 0, 2.96, 0.5),
            "end of tools: not seen before, about 3.0 more visits expected, 50% within 5m",
        ),
        (
            Placed("expected", "context_end", 3, 4.04, 0.8),
            "end of a context block: you said that it comes back, about 4.0 more visits, 80% within 5m",
        ),
        (Placed("keeps_read", tokens=7781.6, ttl="1h"), "keeps a live 1h entry of 7782 tokens within reach"),
        (
            Placed("bridge", blocks=21),
            "bridge: the request before this one ended here, 21 blocks before the last checkpoint",
        ),
        (
            Placed("shared", "context_end"),
            "end of a context block: others part here, and inside the prefix cached anyway it costs nothing",
        ),
        (Placed("quoted", text="as it was printed"), "as it was printed"),
    ],
)
def test_why_a_checkpoint_was_placed(reason: Placed, prose: str) -> None:
    assert str(reason) == prose


def test_reasons_that_differ_in_figures_only_have_one_key() -> None:
    seen = Placed("expected_again", "system_end", 3, 4.0, 0.8)
    assert seen.key == Placed("expected_again", "system_end", 1, 2.0, 0.1).key
    assert seen.key != Placed("expected_again", "system_end", 0, 4.0, 0.8).key
    assert seen.key != Placed("expected_again", "tools_end", 3, 4.0, 0.8).key
    assert Placed("keeps_read", tokens=1).key == Placed("keeps_read", tokens=2).key != Placed("bridge").key
    assert Placed("bridge", "tools_end").key == Placed("bridge", "system_end").key
    assert Placed("quoted", text="a").key != Placed("quoted", text="b").key


@pytest.mark.parametrize(
    ("repair", "prose"),
    [
        (
            Repair("moved", "messages[3].content[1]", "after_reasoning", to="messages[2].content[0]"),
            (
                "after messages[3].content[1] was moved to after messages[2].content[0]: a checkpoint may not follow a "
                "reasoning block"
            ),
        ),
        (
            Repair("moved", "system[0]", "first_in_list", to="tools[4]"),
            "at system[0] was moved to after tools[4]: nothing stands before it in its list",
        ),
        (
            Repair("left_out", "tools[0]", "first_in_list"),
            "at tools[0] was left out: nothing stands before it in its list",
        ),
        (
            Repair("left_out", "system[2]", "over_cap", limit=4),
            "after system[2] was left out: only 4 checkpoints may be sent and this one is worth least",
        ),
        (
            Repair("lowered", "system[0]", "ttl_unknown", ttl="1h"),
            "after system[0] was lowered to 5m: the model has no 1h",
        ),
        (
            Repair("raised", "system[0]", "ttl_order"),
            "after system[0] was raised from 5m to 1h: a 1h checkpoint may not come after a 5m one",
        ),
    ],
)
def test_what_became_of_a_mark(repair: Repair, prose: str) -> None:
    assert str(repair) == f"the checkpoint {prose}"


def test_a_repair_has_one_key_in_every_message_of_a_section() -> None:
    repair = Repair("moved", "messages[3].content[1]", "after_reasoning", to="messages[2].content[0]")
    assert repair.key == repair._replace(path="messages[5].content[0]", to="messages[4].content[0]").key
    others = [
        repair._replace(code="left_out"), repair._replace(reason="after_video"), repair._replace(path="system[1]"),
    ]  # fmt: skip
    assert len({repair.key, *(other.key for other in others)}) == 4
