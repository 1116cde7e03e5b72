"""Hypothesis strategies of Converse requests that the service accepts but for their checkpoints."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from converse_kit import (
    DOCUMENT,
    LLAMA,
    NOVA,
    PNG,
    SONNET,
    SONNET_37,
    SONNET_46,
    Json,
    document,
    guarded,
    image,
    lists,
    point,
    reasoning,
    text,
    tool,
    tool_result,
    tool_use,
    video,
)
from hypothesis import strategies as st

from cachepoint.catalogue.table import load_rules
from cachepoint.core.provider.rules import ModelFacts

OPUS_5 = "global.anthropic.claude-opus-5"
HAIKU_35 = "us.anthropic.claude-3-5-haiku-20241022-v1:0"
NOVA_2 = "us.amazon.nova-2-lite-v1:0"
MODELS = (SONNET, SONNET_46, OPUS_5, SONNET_37, HAIKU_35, NOVA, NOVA_2, LLAMA)
THINKING_CLAUDE = (SONNET, SONNET_46, OPUS_5, SONNET_37)
CLAUDE = (*THINKING_CLAUDE, HAIKU_35)

_WORDS = (
    "Why?",
    "Résumé naïve café",
    "日本語のテキスト。次の文。",
    "🙂 emoji\n\nnext paragraph",
    "tab\tand\u00a0space",
    "{}",
)
_LONG = tuple(DOCUMENT[start : start + size] for start, size in ((0, 600), (600, 3000), (3600, 9000), (0, 14000)))
_REPEATED = ("word " * 900, "東京は日本の首都です。\n\n" * 120, "🙂" * 700, "x" * 5000)

words = st.one_of(
    st.sampled_from(_WORDS),
    st.sampled_from(_LONG),
    st.sampled_from(_LONG),
    st.sampled_from(_REPEATED),
    st.text(min_size=1, max_size=40).filter(lambda value: value.strip() and value.isprintable()),
)
texts = words.map(text)
points = st.sampled_from([point(), point(), point("5m"), point("1h")])
images = st.sampled_from([image(), image(PNG + b"\x01")])


@st.composite
def _user_content(draw: st.DrawFn, results: Sequence[int], model: str) -> list[Json]:
    parts: list[Json] = []
    for number in results:
        inner = draw(st.lists(st.one_of(texts, st.just({"json": {"found": 3}}), images), min_size=1, max_size=2))
        parts.append(tool_result(number, *inner))
    if draw(st.booleans()) and results:
        return parts
    kinds: list[Any] = [texts, texts, images, words.map(guarded), st.just(document("pdf", b"%PDF-1.7 " * 40))]
    if not results or model not in CLAUDE:
        kinds += [st.sampled_from([document("txt"), document("csv"), document("md")]), st.just(video())]
    parts += draw(st.lists(st.one_of(*kinds), max_size=4))
    place = draw(st.integers(len(results), len(parts)))
    parts.insert(place, draw(texts))
    if draw(st.booleans()) and len(parts) > 1:
        parts.append(text("\n"))
    return parts


@st.composite
def _messages(draw: st.DrawFn, model: str, with_tools: bool) -> list[Json]:
    messages: list[Json] = []
    results: list[int] = []
    used = 0
    for _ in range(draw(st.integers(0, 4))):
        messages.append({"role": "user", "content": draw(_user_content(results, model))})
        answer: list[Json] = [reasoning()] if draw(st.booleans()) and model in THINKING_CLAUDE else []
        results = []
        if with_tools and draw(st.booleans()):
            results = list(range(used, used + draw(st.sampled_from([1, 2, 25]))))
            used += len(results)
            answer += [tool_use(number) for number in results]
        if not results or draw(st.booleans()):
            answer.insert(len(answer) - len(results), draw(texts))
        messages.append({"role": "assistant", "content": answer})
        if model == OPUS_5 and not results and draw(st.booleans()):
            messages.append({"role": "system", "content": [draw(texts)]})
    messages.append({"role": "user", "content": draw(_user_content(results, model))})
    return _with_names(messages)


def _with_names(messages: list[Json]) -> list[Json]:
    """The messages with a name of its own for each document."""
    number = itertools.count()
    for message in messages:
        message["content"] = [
            {"document": {**block["document"], "name": f"paper {next(number)}"}} if "document" in block else block
            for block in message["content"]
        ]
    return messages


def _with_points(draw: st.DrawFn, request: Json) -> None:
    """Put checkpoints of the user's anywhere, where the service would take them and where it would not."""
    for _, blocks in lists(request):
        if blocks:
            for place in draw(st.lists(st.integers(0, len(blocks)), max_size=2)):
                blocks.insert(place, draw(points))


def facts(model: str) -> ModelFacts:
    """What the model takes, by the table."""
    rule = load_rules(environ={}).resolve(model)
    assert rule is not None
    return rule.facts


@st.composite
def requests(draw: st.DrawFn, models: tuple[str, ...] = MODELS, marked: bool | None = None) -> Json:
    """A request: tools, system, messages of every kind, and sometimes checkpoints of the user's."""
    model = draw(st.sampled_from(models))
    takes = facts(model)
    tools = [tool(name, draw(words)) for name in draw(st.sampled_from([(), (), ("search",), ("search", "fetch")]))]
    request: Json = {"modelId": model, "messages": draw(_messages(model, bool(tools)))}
    if tools:
        request["toolConfig"] = {"tools": tools}
        if draw(st.booleans()):
            request["toolConfig"]["toolChoice"] = {
                draw(st.sampled_from(sorted({"auto", "any"} & set(takes.tool_choices)))): {}
            }
    if draw(st.booleans()):
        request["system"] = draw(st.lists(st.one_of(texts, words.map(guarded)), min_size=1, max_size=3))
    if draw(st.integers(0, 4)) == 0:
        request["guardrailConfig"] = {"guardrailIdentifier": "guard", "guardrailVersion": "1"}
    forced = "any" in request.get("toolConfig", {}).get("toolChoice", {})
    if takes.thinking != "none" and (takes.forced_tool_with_thinking or not forced) and draw(st.integers(0, 4)) == 0:
        budget = {"type": "enabled", "budget_tokens": 2048}
        thinking = budget if "enabled" in takes.thinking_types else {"type": "adaptive"}
        request["additionalModelRequestFields"] = {"thinking": thinking}
    if draw(st.booleans()) if marked is None else marked:
        _with_points(draw, request)
    return request


@st.composite
def conversations(draw: st.DrawFn, models: tuple[str, ...] = (*CLAUDE, NOVA), turns: int = 5) -> list[Json]:
    """Requests of one application in a row: a conversation that grows, questions to one document, or both mixed."""
    first = draw(requests(models))
    grows = draw(st.sampled_from([(True,), (False,), (True, False)]))
    made = [first]
    for _ in range(turns - 1):
        last = made[-1]
        question = f"\n\nQuestion: {draw(words)[:60]}?"
        if draw(st.sampled_from(grows)) or "toolResult" in str(first["messages"][-1]["content"]):
            answer = {"role": "assistant", "content": [text("An answer.")]}
            messages = [*last["messages"], answer, {"role": "user", "content": [text(question)]}]
        else:
            messages = [*first["messages"][:-1], {"role": "user", "content": [text(DOCUMENT[:14000] + question)]}]
        made.append({**last, "messages": messages})
    return made
