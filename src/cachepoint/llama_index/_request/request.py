"""One Converse request out of messages and options: a pure step that the synchronous and asynchronous calls share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage

from cachepoint.bedrock.wire.cache_point import cache_point, is_cache_point
from cachepoint.core.prompt.prompt import Hints
from cachepoint.errors import ConfigurationError
from cachepoint.llama_index._request.messages import Recipient, to_conversation
from cachepoint.llama_index._request.tools import stand_ins

_INFERENCE: Mapping[str, str] = {
    "max_tokens": "maxTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "stop_sequences": "stopSequences",
}
_GUARDRAIL: Mapping[str, str] = {
    "guardrail_identifier": "guardrailIdentifier",
    "guardrail_version": "guardrailVersion",
    "trace": "trace",
    "guardrail_stream_processing_mode": "streamProcessingMode",
}
# DocumentContextExtractor sends a header of another provider's with every call.
_NOT_FOR_BEDROCK = frozenset({"extra_headers"})


def converse_request(
    messages: Sequence[ChatMessage],
    options: Mapping[str, Any],
    *,
    recipient: Recipient,
    stream: bool,
    mark_system: bool,
) -> tuple[dict[str, Any], Hints]:
    """The arguments for `converse` or `converse_stream`, and what is known of its blocks.

    `options` may name everything this module knows under LlamaIndex's names, and every other member of a Converse
    request under its own; None counts as not given. `mark_system` puts a checkpoint behind the system blocks.
    """
    given = {name: value for name, value in options.items() if value is not None and name not in _NOT_FOR_BEDROCK}
    conversation = to_conversation(messages, recipient)
    request: dict[str, Any] = {"modelId": given.pop("model"), "messages": conversation.messages}
    if system := conversation.system:
        marked = is_cache_point(system[-1]) or not mark_system
        request["system"] = system if marked else [*system, cache_point()]
    if config := given.pop("tools", None) or stand_ins(conversation.tool_names()):
        request["toolConfig"] = config
    if inference := _taken(given, _INFERENCE):
        request["inferenceConfig"] = inference
    guardrail = _taken(given, _GUARDRAIL)
    if not stream:
        guardrail.pop("streamProcessingMode", None)
    if named := [name for name in ("guardrailIdentifier", "guardrailVersion") if name in guardrail]:
        if len(named) == 1:
            raise ConfigurationError(
                f"{named[0]} is {guardrail[named[0]]!r} and its other half is missing; a guardrail needs both "
                "guardrail_identifier and guardrail_version"
            )
        request["guardrailConfig"] = guardrail
    if thinking := given.pop("thinking", None):
        request["additionalModelRequestFields"] = {"thinking": thinking}
    return _merged(request, given), conversation.hints


def _taken(options: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Take options out under the names Converse has for them."""
    return {parameter: options.pop(name) for name, parameter in names.items() if name in options}


def _merged(request: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The request with more members; where both have a dict, the two are merged and `more` wins."""
    merged = dict(request)
    for name, value in more.items():
        known = merged.get(name)
        merged[name] = _merged(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return merged
