"""The two requests of AWS's article on prompt caching, with raw boto3: a document and a question, through both APIs.

python examples/article_boto3.py           on the embedded emulator
python examples/article_boto3.py --live    on Amazon Bedrock, with your credentials
"""

from __future__ import annotations

import json
from typing import Any

from langchain_common import MODEL, bedrock, reference, told_by

import cachepoint

[CHAPTER] = reference("formatstrings")
INSTRUCTIONS = "Answer from this document, in two sentences:\n\n"
QUESTIONS = ("How is a number written in hexadecimal?", "What does the alignment option do?")


def converse(client: Any, question: str) -> Any:
    """Converse, with a `cachePoint` behind the document."""
    content = [
        {"text": INSTRUCTIONS + CHAPTER.page_content},
        {"cachePoint": {"type": "default"}},
        {"text": question},
    ]
    response = client.converse(modelId=MODEL, messages=[{"role": "user", "content": content}])
    return response["promptCache"]


def invoke_model(client: Any, question: str) -> Any:
    """InvokeModel, with `cache_control` on the document's block."""
    document = {"type": "text", "text": INSTRUCTIONS + CHAPTER.page_content, "cache_control": {"type": "ephemeral"}}
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": [document, {"type": "text", "text": question}]}],
    }
    response = client.invoke_model(modelId=MODEL, body=json.dumps(body))
    assert json.loads(response["body"].read())["content"]
    return response["promptCache"]


if __name__ == "__main__":
    with bedrock() as boto3_client:
        client = cachepoint.wrap(boto3_client)
        for ask in (converse, invoke_model):
            for question in QUESTIONS:
                print(f"{ask.__name__:12}  {told_by(ask(client, question))}")
        print(f"all: {client.ledger.totals().cost.saved_usd} USD saved")
