"""`cachepoint rules` and `cachepoint serve`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from cachepoint.catalogue.table import load_table
from cachepoint.cli import main
from cachepoint.emulator import BedrockEmulator

Capture = pytest.CaptureFixture[str]


def test_the_table_has_a_line_for_every_model(capsys: Capture) -> None:
    assert main(["rules"]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["model", "minimum"]
    assert len(lines) == len(load_table().rows)


def test_a_models_row_says_where_it_is_known_from(capsys: Capture) -> None:
    assert main(["rules", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^minimum +1024$", text, re.MULTILINE)
    assert "source: recorded on Bedrock" in text
    assert "USD per million tokens, global: input 3," in text


def test_a_models_row_has_every_fact_about_it(capsys: Capture) -> None:
    assert main(["rules", "us.anthropic.claude-opus-5-5"]) == 0
    text = capsys.readouterr().out
    for fact, value in (
        ("context_window", "1000000"),
        ("thinking", "always"),
        ("effort", "medium"),
        ("temperature", "no"),
        ("prefill", "no"),
        ("keeps_thinking", "yes"),
        ("top_level_cache_control", "yes"),
        ("counts_tokens", "no"),
    ):
        assert re.search(rf"^{fact} +{value}$", text, re.MULTILINE)


def test_the_table_says_when_a_model_ended(capsys: Capture) -> None:
    main(["rules"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Amazon Nova Premier"))
    assert line.endswith("2026-09-14")


def test_rows_are_printed_as_json_too(capsys: Capture) -> None:
    assert main(["rules", "--json", "anthropic.claude-sonnet-4-6"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["ttls"]) == ("Claude Sonnet 4.6", ["5m", "1h"])
    assert (row["context_window"], row["thinking"]) == (1_000_000, "off")


def test_the_users_own_rows_are_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    own = tmp_path / "rules.toml"
    own.write_text('[[model]]\nname = "Claude Sonnet 4.5"\nminimum = 4096\n')
    monkeypatch.setenv("CACHEPOINT_RULES", str(own))
    main(["rules", "anthropic.claude-sonnet-4-5-20250929-v1:0"])
    assert re.search(r"^minimum +4096$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("name", ["Claude Sonnet 4.6", "claude sonnet 4.6", "Claude Sonnet 5"])
def test_a_row_is_found_by_the_name_it_has_in_the_table(name: str, capsys: Capture) -> None:
    assert main(["rules", name]) == 0
    assert re.search(rf"^name +{name}$", capsys.readouterr().out, re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("model", ["claude-sonnet-4.6", "claude-sonnet-4-6", "Sonnet 4.6", "glm-5.3"])
def test_what_names_no_provider_is_an_error_and_not_everything_else(model: str, capsys: Capture) -> None:
    assert main(["rules", model]) == 1
    assert f"{model!r} is neither a name in the table nor a Bedrock model id" in capsys.readouterr().err


def test_an_arn_that_hides_its_model_is_an_error_with_the_remedy(capsys: Capture) -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    assert main(["rules", arn]) == 1
    message = capsys.readouterr().err
    assert arn in message
    assert "give the base model's id" in message


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """`cachepoint serve` in a process of its own, and a client of it."""
    command = [
        sys.executable,
        "-c",
        # A shell starts what runs in its background with Ctrl-C ignored, and this would inherit that.
        (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
            "from cachepoint.cli import main; raise SystemExit(main(['serve', '--port', '0', *sys.argv[1:]]))"
        ),
        *arguments,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy()) as server:
        assert server.stdout is not None
        url = re.search(r'endpoint_url="([^"]+)"', server.stdout.readline())
        assert url
        assert f"export AWS_ENDPOINT_URL_BEDROCK_RUNTIME={url[1]}" in server.stdout.readline()
        assert "Ctrl-C" in server.stdout.readline()
        yield (
            server,
            boto3.client(
                "bedrock-runtime",
                region_name="us-east-1",
                endpoint_url=url[1],
                aws_access_key_id="local",
                aws_secret_access_key="local",
            ),
        )


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_the_served_bedrock_answers_boto3_and_ends_with_its_bill(end: signal.Signals, tmp_path: Path) -> None:
    question = {
        "modelId": "us.anthropic.claude-sonnet-4-6",
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
    }
    with serving("--requests", "1", "--log", str(tmp_path / "logs")) as (server, client):
        answers = [client.converse(**question) for _ in range(2)]
        server.send_signal(end)
        assert server.stdout is not None
        (printed,) = server.stdout.readlines()
        assert server.wait(timeout=120) == 0
    assert answers[0]["output"]["message"]["role"] == "assistant"
    asked, answered = (2 * answers[0]["usage"][name] for name in ("inputTokens", "outputTokens"))
    # 3.3 and 16.5 USD a million tokens: list price and the tenth that a regional profile costs more
    usd = (asked * 3.3 + answered * 16.5) / 1e6
    assert printed == (
        f"Served 2 calls: {asked} tokens of input, 0 read from the cache, 0 written for 5 minutes and 0 for 1 hour, "
        f"{answered} of output; at list prices ${usd:.6f}.\n"
    )
    assert len([*(tmp_path / "logs").rglob("*.json.gz")]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "port is 99999; give 0 to 65535, where 0 takes a free one"),
        (["--port", "-1"], "port is -1; give 0 to 65535, where 0 takes a free one"),
        (["--requests", "0"], "--requests is 0; give 1 or more"),
        (["--allow-host", ""], "--allow-host is ''; give the name of a host"),
        (["--allow-host", "http://x"], "'http://x' is no host; give its name"),
        (["--log", __file__], f"the invocation log cannot be written in {__file__!r} (File exists); name a folder"),
        (["--log", f"{__file__}/logs"], "(Not a directory); name a folder that can be written in"),
    ],
    ids=["port", "negative port", "requests", "no host", "a URL", "a file", "below a file"],
)
def test_what_cannot_be_served_is_one_sentence_and_code_2(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(["serve", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cachepoint: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_and_so_is_a_port_in_use(capsys: Capture) -> None:
    with BedrockEmulator() as emulator:
        port = emulator.url.rpartition(":")[2]
        assert main(["serve", "--port", port]) == 2
    assert capsys.readouterr().err.startswith(f"cachepoint: port {port} on 127.0.0.1 cannot be bound")
