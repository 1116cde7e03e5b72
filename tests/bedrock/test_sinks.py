"""The ledger's records as JSON lines, in a file or on standard output."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from converse_kit import SONNET, SYSTEM, Bedrock, text, user

import cachepoint
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.provider.prices import plain
from cachepoint.errors import CachepointWarning, ConfigurationError
from cachepoint.sinks import InBackground, JsonLines

SECRET = "The launch is on the ninth of May."


def ask(bedrock: Bedrock, ledger: cachepoint.CacheLedger, question: str = "What is assigned?") -> Any:
    client = bedrock.wrapped(ledger=ledger)
    return client.converse(modelId=SONNET, system=[text(SYSTEM + SECRET)], messages=[user(question)])


def test_a_file_gets_a_line_for_each_call(bedrock: Bedrock, tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text('{"earlier": 1}\n')
    with JsonLines(path) as sink:
        ledger = cachepoint.CacheLedger(on_call=sink)
        with cachepoint.tags(tenant="ä", session="s1"):
            told = ask(bedrock, ledger)["promptCache"]
        earlier, line = (json.loads(each) for each in path.read_text(encoding="utf-8").splitlines())
    assert earlier == {"earlier": 1}
    assert {name: line[name] for name in told} == told
    assert (line["model"], line["region"], line["api"]) == (SONNET, "us-east-1", "converse")
    assert (line["tags"], line["session"]) == ({"tenant": "ä", "session": "s1"}, "s1")
    assert line["cost"]["usd"] == plain(bedrock.bill[0].usd or Decimal(0))


def test_standard_output_is_the_default(bedrock: Bedrock, capsys: pytest.CaptureFixture[str]) -> None:
    ask(bedrock, cachepoint.CacheLedger(on_call=JsonLines()))
    assert json.loads(capsys.readouterr().out)["status"] == "written"


def test_no_text_of_a_prompt_is_written(bedrock: Bedrock) -> None:
    out = io.StringIO()
    ask(bedrock, cachepoint.CacheLedger(on_call=JsonLines(out)), "Who may know of it?")
    assert out.getvalue()
    assert "launch" not in out.getvalue()
    assert "Who may know" not in out.getvalue()


def test_lines_of_many_threads_do_not_mix(bedrock: Bedrock) -> None:
    out = io.StringIO()
    ledger = cachepoint.CacheLedger(on_call=JsonLines(out))
    ask(bedrock, ledger)
    (record,) = ledger.records

    def add() -> None:
        for _ in range(50):
            ledger.add(record)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in out.getvalue().splitlines()]) == 401


def test_a_sink_that_fails_spoils_neither_the_call_nor_the_other_sinks(bedrock: Bedrock) -> None:
    seen: list[CallRecord] = []

    def full(_: CallRecord) -> None:
        raise OSError(28, "No space left on device")

    ledger = cachepoint.CacheLedger(on_call=[full, seen.append])
    with pytest.warns(CachepointWarning, match="on_call raised OSError"):
        assert ask(bedrock, ledger)["promptCache"]["status"] == "written"
    assert len(seen) == len(ledger.records) == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: JsonLines(cast(Any, 5)), r"JsonLines\(5\): give a path"),
        (lambda: InBackground(cast(Any, "calls.jsonl")), r"InBackground\('calls.jsonl'\): give a function"),
        (lambda: InBackground(print, most=0), r"most=0\): use a whole number"),
    ],
)
def test_what_is_no_sink_is_said_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"calls\.jsonl"):
        JsonLines(tmp_path / "missing" / "calls.jsonl")


# -- a slow sink, in the background ----------------------------------------------------------------------


def recorded(bedrock: Bedrock) -> CallRecord:
    ledger = cachepoint.CacheLedger()
    ask(bedrock, ledger)
    return ledger.records[0]


def test_a_sink_in_the_background_holds_up_no_call(bedrock: Bedrock) -> None:
    go_on, written = threading.Event(), []

    def slow(record: CallRecord) -> None:
        assert go_on.wait(30)
        written.append(record)

    with InBackground(slow) as sink:
        ledger = cachepoint.CacheLedger(on_call=sink)
        for _ in range(3):
            ask(bedrock, ledger)
        assert written == []
        go_on.set()
    assert written == [*ledger.records]


def test_what_a_sink_does_not_keep_up_with_is_dropped_and_counted(
    bedrock: Bedrock, caplog: pytest.LogCaptureFixture
) -> None:
    record, go_on, written = recorded(bedrock), threading.Event(), []

    def slow(record: CallRecord) -> None:
        assert go_on.wait(30)
        written.append(record)

    with InBackground(slow, most=2) as sink:
        for _ in range(10):
            sink(record)
        go_on.set()
    sink(record)  # closed by now
    # Two wait, and perhaps a third is being written.
    assert len(written) in (2, 3)
    assert sink.dropped == 11 - len(written)
    assert [each.message for each in caplog.records] == [
        "cachepoint: the sink function does not keep up; calls are left out. Give a larger `most`, or a faster sink"
    ]


def test_a_sink_that_raises_in_the_background_is_logged_and_goes_on(
    bedrock: Bedrock, caplog: pytest.LogCaptureFixture
) -> None:
    record, written = recorded(bedrock), []

    def full(record: CallRecord) -> None:
        written.append(record)
        raise OSError(28, "No space left on device")

    with InBackground(full) as sink:
        sink(record)
        sink(record)
    assert len(written) == 2
    assert {each.message for each in caplog.records} == {
        "cachepoint: the sink function raised OSError; the call is in the ledger, but not where the sink keeps it"
    }


def test_a_sink_that_hangs_does_not_keep_a_program_from_ending(bedrock: Bedrock) -> None:
    go_on = threading.Event()
    sink = InBackground(lambda _: go_on.wait(30))
    sink(recorded(bedrock))
    sink.close(timeout=0.01)
    assert sink._thread.is_alive()
    go_on.set()
    sink._thread.join(30)


def test_what_waits_is_written_when_the_program_ends_and_by_a_child_too(tmp_path: Path) -> None:
    program = """
import os, sys, warnings
import cachepoint
from cachepoint.sinks import InBackground, JsonLines

class Client:
    def converse(self, **request):
        return {"usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}}

sink = InBackground(JsonLines(sys.argv[1]))
client = cachepoint.wrap(Client(), ledger=cachepoint.CacheLedger(on_call=sink))
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
child = os.fork()
with cachepoint.tags(who="parent" if child else "child"):
    client.converse(modelId="amazon.nova-lite-v1:0", messages=[{"role": "user", "content": [{"text": "Why?"}]}])
if child:
    os.waitpid(child, 0)
"""
    path = tmp_path / "calls.jsonl"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)
    assert sorted(json.loads(line)["tags"]["who"] for line in path.read_text().splitlines()) == ["child", "parent"]
