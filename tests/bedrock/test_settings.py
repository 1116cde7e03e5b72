"""A wrong setting is an error where it is made; one that goes wrong while a program runs fails no call."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from converse_kit import SONNET, Bedrock, checkpoints, question

import cachepoint
from cachepoint import CacheLedger, CachePolicy, MemoryStore
from cachepoint.bedrock.client import CacheClient, wrap
from cachepoint.bedrock.environment import mode_in_force, table_in_force
from cachepoint.catalogue.price_book import PriceBook
from cachepoint.core.provider.rules import Rules
from cachepoint.errors import CachepointWarning, ConfigurationError

REQUEST = question()
aiobotocore = pytest.importorskip("aiobotocore.session", reason="the extra `async` is not installed")


# -- where it is made -----------------------------------------------------------------------------


class KeyedStore(MemoryStore):
    """A store with another key than a MemoryStore takes."""

    def __init__(self, key: Any) -> None:
        super().__init__()
        self.key = key


WRONG: list[tuple[str, Any, str]] = [
    ("policy", "off", "policy='off' is no CachePolicy"),
    ("ledger", [], r"ledger=\[\]: pass a CacheLedger"),
    ("ledger", CacheLedger, "pass a CacheLedger"),
    ("store", {}, r"store=\{\}: it lacks key; pass a store, such as MemoryStore\(\)"),
    ("store", MemoryStore, "it lacks an instance"),
    ("store", SimpleNamespace(key=b"k" * 32, visit=print), "it lacks peek"),
    ("store", KeyedStore(b""), "its key has 0 bytes; use 16 to 64"),
    ("store", KeyedStore("k" * 32), "its key is a str; use bytes"),
    ("clock", 1_700_000_000, "pass a function that gives seconds since 1970"),
    ("clock", time, "pass a function"),
    ("base_models", "arn", "pass a mapping from ARN to model id"),
    ("base_models", {"arn": None}, "pass a mapping from ARN to model id"),
    ("base_models", {"arn": ""}, "pass a mapping from ARN to model id"),
    ("prices", {"input": 3}, r"it lacks price; pass what has a method `price`, such as PriceBook"),
    ("prices", PriceBook, "it lacks an instance"),
    ("rules", [], "it lacks resolve"),
    ("hints", "tools", "pass a mapping from places"),
    ("control_client", object(), "pass a client for 'bedrock', not one for 'bedrock-runtime'"),
    ("cache_policy", CachePolicy(), r"unknown option 'cache_policy' \(did you mean 'policy'\?\)"),
    ("mode", "off", r"'mode' is a setting of the policy; pass CachePolicy\(mode=…\)"),
    ("legder", CacheLedger(), r"unknown option 'legder' \(did you mean 'ledger'\?\)"),
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_a_wrong_option_is_refused_with_its_value_and_a_remedy(
    bedrock: Bedrock, name: str, value: Any, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        cachepoint.wrap(bedrock.client(), **{name: value})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MemoryStore(key=b""), r"MemoryStore\(key=…\): its key has 0 bytes"),
        (lambda: MemoryStore(key=b"k" * 65), "its key has 65 bytes"),
        (lambda: MemoryStore(key="k" * 32), "its key is a str"),  # type: ignore[arg-type]
        (lambda: MemoryStore(boundaries_kept=0), "boundaries_kept=0"),
        (lambda: MemoryStore(boundaries_kept=1e5), "boundaries_kept=100000.0"),  # type: ignore[arg-type]
        (lambda: CacheLedger(keep=-1), "keep=-1"),
        (lambda: CacheLedger(keep=None), "keep=None"),  # type: ignore[arg-type]
        (lambda: CacheLedger(on_call="calls.jsonl"), "on_call='calls.jsonl'"),  # type: ignore[arg-type]
        (lambda: CacheLedger(on_call=[print, None]), "on_call="),  # type: ignore[list-item]
        (lambda: CacheLedger(on_call=SimpleNamespace), "on_call="),  # type: ignore[arg-type]
        (lambda: CachePolicy.of({"tll": "1h"}), r"no setting 'tll' \(did you mean 'ttl'\?\)"),
        (lambda: CachePolicy(ttl=300), "ttl=300"),  # type: ignore[arg-type]
        (lambda: CachePolicy(max_checkpoints=True), "max_checkpoints=True"),
        (lambda: CachePolicy().asked("ephemeral"), "cache_control='ephemeral'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_made_with_a_wrong_value_says_so(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_a_store_that_cannot_be_reached_is_no_wrong_one(bedrock: Bedrock) -> None:
    class Away(MemoryStore):
        def __getattribute__(self, name: str) -> Any:
            if name in ("key", "visit"):
                raise ConnectionError(name)
            return super().__getattribute__(name)

    store = Away.__new__(Away)
    assert bedrock.wrapped(store=store).store is store


@pytest.mark.parametrize("value", ["disabled", "false", "0", "none", "on"])
def test_a_typo_in_the_kill_switch_is_refused_where_a_client_is_made(
    bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CACHEPOINT_MODE", value)
    with pytest.raises(ConfigurationError, match=f"CACHEPOINT_MODE='{value}': use one of .*'off'"):
        bedrock.wrapped()


def test_a_wrong_rules_file_is_refused_where_a_client_is_made(
    bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CACHEPOINT_RULES", str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigurationError, match="CACHEPOINT_RULES names"):
        bedrock.wrapped()


# -- the environment, while a program runs --------------------------------------------------------


def test_of_the_mode_what_was_right_last_stays_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = CachePolicy()
    monkeypatch.setenv("CACHEPOINT_MODE", "off")
    assert mode_in_force(policy).mode == "off"
    monkeypatch.setenv("CACHEPOINT_MODE", "of")
    with pytest.warns(CachepointWarning, match=r"='of': .* CACHEPOINT_MODE='off' stays in force") as warned:
        assert [mode_in_force(policy).mode for _ in range(3)] == ["off"] * 3
    assert len(warned) == 1
    monkeypatch.delenv("CACHEPOINT_MODE")
    assert mode_in_force(policy).mode == "auto"


def test_of_the_rules_what_was_right_last_stays_in_force(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    monkeypatch.setenv("CACHEPOINT_RULES", str(file))
    file.write_text("[[model]]\nname = 'mine'\npattern = 'mine'\nminimum = 7\n")
    assert table_in_force().rules.rows[0].minimum == 7
    with pytest.warns(CachepointWarning) as warned:
        file.write_text("[[model]]\nname = 'mine'\npatt")  # an editor, in the middle of a write
        assert table_in_force().rules.rows[0].minimum == 7
        file.unlink()
        assert table_in_force().rules.rows[0].minimum == 7
    assert len(warned) == 1
    assert "stays in force" in str(warned[0].message)
    file.write_text("[[model]]\nname = 'mine'\npattern = 'mine'\nminimum = 8\n")
    assert table_in_force().rules.rows[0].minimum == 8


def test_a_client_made_while_the_rules_were_right_goes_on_with_them(
    bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "rules.toml"
    monkeypatch.setenv("CACHEPOINT_RULES", str(file))
    price = "prices.regional = { input = 7, output = 9 }"
    file.write_text(f"[[model]]\nname = 'mine'\npattern = 'claude-sonnet-4-5'\nminimum = 9000\n{price}\n")
    client = bedrock.wrapped()
    file.write_text("[[model]]\nnam")
    told = client.converse(**REQUEST)["promptCache"]
    assert {each["reason"] for each in told["held"]} == {"below_minimum"}
    # By hand: (tokens in × 7 + tokens out × 9) / 1,000,000 USD.
    usage = told["usage"]
    assert float(told["cost"]["usd"]) == pytest.approx((usage["input"] * 7 + usage["output"] * 9) / 1e6)


def test_a_client_that_runs_obeys_the_kill_switch(bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch) -> None:
    client, switched, modes = bedrock.wrapped(), [None, "off", "observe", None], []
    for mode in switched:
        monkeypatch.setenv("CACHEPOINT_MODE", mode or "")
        modes.append(client.converse(**REQUEST)["promptCache"]["mode"])
        assert client.policy.mode == modes[-1]
        assert f"mode {modes[-1]}>" in repr(client)
    assert modes == ["auto", "off", "observe", "auto"]
    assert [bool(checkpoints(body)) for body in bedrock.bodies] == [True, False, False, True]


def test_a_client_that_runs_keeps_its_mode_through_a_typo(bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch) -> None:
    client = bedrock.wrapped()
    monkeypatch.setenv("CACHEPOINT_MODE", "disabled")
    with pytest.warns(CachepointWarning, match="CACHEPOINT_MODE='disabled': .* Until then it counts as unset"):
        assert client.converse(**REQUEST)["promptCache"]["mode"] == "auto"


def test_what_is_made_while_the_switch_is_off_is_not_off_for_good(
    bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEPOINT_MODE", "off")
    client = bedrock.wrapped()
    clients = [client, wrap(client), wrap(client, CachePolicy(mode="observe")), copy(client)]
    assert [each.policy.mode for each in clients] == ["off"] * 4
    monkeypatch.delenv("CACHEPOINT_MODE")
    assert [each.policy.mode for each in clients] == ["auto", "auto", "observe", "auto"]


# -- a clock --------------------------------------------------------------------------------------


def raises() -> float:
    raise KeyError("no time")


@pytest.mark.parametrize(
    "clock",
    [
        raises, lambda: math.nan, lambda: math.inf, lambda: None, lambda: -1.0, lambda: "1700000000", lambda: True,
        lambda: 1_700_000_000_000, lambda: 10**400, object,
    ],
)  # fmt: skip
def test_for_a_clock_that_fails_the_time_of_day_stands_in(bedrock: Bedrock, clock: Callable[[], Any]) -> None:
    client, before = bedrock.wrapped(clock=clock), time.time()
    with pytest.warns(CachepointWarning, match=r"the clock (raised KeyError|gave .*) in place of seconds") as warned:
        statuses = [client.converse(**question(number))["promptCache"]["status"] for number in range(2)]
    assert statuses == ["written", "extended"] or statuses == ["written", "hit"]
    assert len(warned) == 1
    assert all(before <= record.started <= time.time() for record in client.ledger.records)


YEAR = 365 * 86_400.0


def test_a_clock_that_jumps_by_years_fails_no_call_and_stops_no_caching(bedrock: Bedrock) -> None:
    now = 1_700_000_000.0
    client = bedrock.wrapped(clock=lambda: now)
    for jump in (0, 60, 10 * YEAR, 60, -40 * YEAR, 60, 200 * YEAR, -170 * YEAR, 60, 60, 60):
        now += jump
        told = client.converse(**question(int(now) % 97))["promptCache"]
        assert told["usage"]["cache_read"] or told["checkpoints"]
    assert told["status"] in ("hit", "extended")


# -- what is the user's, and raises ---------------------------------------------------------------


class Broken(Exception):
    """What a part of the user's raises."""


def fails(*_: Any, **__: Any) -> Any:
    raise Broken


class NoLedger(CacheLedger):
    add = fails


class NoPrices:
    price = fails


class NoRules(Rules):
    resolve = fails


def store_where(method: str, answer: Callable[..., Any]) -> MemoryStore:
    store: MemoryStore = type("Store", (MemoryStore,), {method: answer})()
    return store


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "ledger": lambda: {"ledger": NoLedger()},
    "on_call": lambda: {"ledger": CacheLedger(on_call=[fails, fails])},
    "prices": lambda: {"prices": NoPrices()},
    "rules": lambda: {"rules": NoRules()},
    "hints": lambda: {"hints": {5: "context"}},
    "clock": lambda: {"clock": fails},
    **{
        f"{method} {what}": lambda method=method, answer=answer: {"store": store_where(method, answer)}  # type: ignore[misc]
        for method in ("visit", "peek", "sent", "began", "settled")
        for what, answer in (("raises", fails), ("gives None", lambda *_, **__: None), ("gives 5", lambda *_, **__: 5))
    },
}


async def calls_async(bedrock: Bedrock, options: dict[str, Any]) -> None:
    settings = {"region_name": "us-east-1", "aws_access_key_id": bedrock.account, "aws_secret_access_key": "emulator"}
    opening = aiobotocore.AioSession().create_client("bedrock-runtime", endpoint_url=bedrock.emulator.url, **settings)
    async with cachepoint.wrap_async(opening, **options) as client:
        assert (await client.converse(**REQUEST))["output"]
        stream = (await client.converse_stream(**REQUEST))["stream"]
        assert "messageStop" in str([event async for event in stream])


def calls(client: CacheClient) -> None:
    for _ in range(2):
        assert client.converse(**REQUEST)["output"]
    assert "messageStop" in str(list(client.converse_stream(**REQUEST)["stream"]))


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_of_the_users_that_fails_fails_no_call(
    bedrock: Bedrock, part: str, faults: list[Exception]
) -> None:
    options = {"clock": bedrock.clock, **PARTS[part]()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as under `python -W error`
        calls(bedrock.wrapped(**options))
        await calls_async(bedrock, options)
    assert bedrock.statuses == [200] * 5
    assert {type(fault) for fault in faults} <= {Broken, AttributeError, TypeError}
    faults.clear()


def test_a_warning_of_another_library_in_a_part_of_the_users_fails_no_call(
    bedrock: Bedrock, faults: list[Exception]
) -> None:
    class Old(MemoryStore):
        def visit(self, *given: Any) -> Any:
            warnings.warn("visit is old", DeprecationWarning, stacklevel=2)
            return super().visit(*given)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calls(bedrock.wrapped(store=Old()))
    assert [type(fault) for fault in faults] == [DeprecationWarning] * 3
    faults.clear()


def test_a_program_whose_warnings_cannot_be_shown_is_answered(
    bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch, faults: list[Exception]
) -> None:
    monkeypatch.setattr(warnings, "showwarning", fails)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        calls(bedrock.wrapped(clock=raises))
    assert [checkpoints(body) != [] for body in bedrock.bodies] == [True] * 3


def test_the_options_of_a_client_wrapped_again_are_checked_too(bedrock: Bedrock) -> None:
    with pytest.raises(ConfigurationError, match="clock=5"):
        cachepoint.wrap(bedrock.wrapped(), clock=5)  # type: ignore[arg-type]
    assert cachepoint.wrap(bedrock.wrapped(), clock=None).converse(modelId=SONNET, messages=REQUEST["messages"])
