"""The first call imports nothing and opens no file that the client underneath would not: construction has done it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from cachepoint.emulator import BedrockEmulator

WATCHED = """
import asyncio, os, sys
URL, MODEL = sys.argv[1], "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PROMPT = "A checkpoint marks where a prefix ends that may be read again. " * 400
CONNECTION = {"region_name": "us-east-1", "endpoint_url": URL, "aws_access_key_id": "X", "aws_secret_access_key": "x"}
REQUEST = {
    "modelId": MODEL,
    "system": [{"text": PROMPT}],
    "messages": [{"role": "user", "content": [{"text": "Why?"}]}],
}
watching, opened, imported = False, [], set()

def note(event, arguments):
    if watching and event == "open":
        opened.append(arguments[0])

sys.addaudithook(note)

async def watched(call):
    global watching
    before, watching = set(sys.modules), True
    await call()
    watching = False
    imported.update(set(sys.modules) - before)
"""
NEEDED = ("aiobotocore", "langchain_aws", "llama_index")
RUNS = {
    "the wrapped clients": """
        import boto3
        from aiobotocore.session import get_session
        import cachepoint

        async def main():
            raw = boto3.client("bedrock-runtime", **CONNECTION)
            raw.converse(**REQUEST)
            client = cachepoint.wrap(raw)
            await watched(lambda: asyncio.to_thread(client.converse, **REQUEST))
            async with get_session().create_client("bedrock-runtime", **CONNECTION) as raw:
                await raw.converse(**REQUEST)
                client = cachepoint.wrap_async(raw)
                await watched(lambda: client.converse(**REQUEST))
    """,
    "LangChain": """
        from langchain_aws import ChatBedrockConverse
        from cachepoint.langchain import CacheAwareChatBedrockConverse

        async def main():
            messages = [("system", PROMPT), ("human", "Why?")]
            await ChatBedrockConverse(model=MODEL, **CONNECTION).ainvoke(messages)
            model = CacheAwareChatBedrockConverse(model=MODEL, **CONNECTION)
            await watched(lambda: model.ainvoke(messages))
    """,
    "LlamaIndex": """
        from llama_index.core.llms import ChatMessage
        from cachepoint.llama_index import CacheAwareBedrockConverse

        async def main():
            llm = CacheAwareBedrockConverse(model=MODEL, system_prompt=PROMPT, **CONNECTION)
            await asyncio.to_thread(int)  # a thread of the loop's is the first call's as well
            await watched(lambda: llm.achat([ChatMessage(content="Why?")]))
    """,
}


pytestmark = pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason=f"one of {NEEDED} is not installed")


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A process for each way to call, for what one has imported another does not import."""
    with BedrockEmulator() as bedrock:
        programs = {
            name: f"{WATCHED}{textwrap.dedent(run)}\nasyncio.run(main())\nprint(sorted(imported), opened)"
            for name, run in RUNS.items()
        }
        settings = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CACHEPOINT_"))}
        processes = {
            name: subprocess.Popen(
                [sys.executable, "-c", program, bedrock.url],
                stdout=subprocess.PIPE,
                text=True,
                env={**settings, "AWS_EC2_METADATA_DISABLED": "true"},
            )
            for name, program in programs.items()
        }
        yield processes
        for process in processes.values():
            with process:  # which waits for it, and closes its output
                process.kill()


@pytest.mark.parametrize("name", RUNS)
def test_the_first_call_imports_and_reads_nothing(name: str, running: dict[str, subprocess.Popen[str]]) -> None:
    told, _ = running[name].communicate(timeout=60)
    assert told == "[] []\n"
