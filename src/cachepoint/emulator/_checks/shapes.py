"""Whether the fields of a body have the types that its operation takes.

Converse and CountTokens go by the service's own API model, as botocore has it; what that does not know passes, for it
may be older than the program. Messages bodies and model request fields go by the tables here. That the service answers
a wrong type with a ValidationException, and in which words, is assumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from types import NoneType
from typing import Any

from cachepoint.emulator._checks.service_errors import MODEL_ERRORS, ServiceError, invalid
from cachepoint.emulator._reading.request import Json, Operation

_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "blob": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
}
_NAMES: Mapping[type, str] = {
    dict: "dictionary",
    list: "list",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
}

_Fields = Mapping[str, tuple[type, ...]]
_MESSAGES_FIELDS: _Fields = {
    "anthropic_version": (str,),
    "anthropic_beta": (list, NoneType),
    "cache_control": (dict, NoneType),
    "context_management": (dict, NoneType),
    "max_tokens": (int,),
    "mcp_servers": (list, NoneType),
    "messages": (list,),
    "metadata": (dict, NoneType),
    "output_config": (dict, NoneType),
    "reasoningConfig": (dict, NoneType),
    "reasoning_config": (dict, NoneType),
    "speed": (str, NoneType),
    "stop_sequences": (list, NoneType),
    "system": (str, list, NoneType),
    "temperature": (int, float, NoneType),
    "thinking": (dict, NoneType),
    "tool_choice": (dict, NoneType),
    "tools": (list, NoneType),
    "top_k": (int, NoneType),
    "top_p": (int, float, NoneType),
}
_CONTROL: _Fields = {"type": (str,), "ttl": (str, NoneType)}
_INSIDE: Mapping[str, _Fields] = {
    "cache_control": _CONTROL,
    "output_config": {"effort": (str, NoneType), "format": (dict, NoneType)},
    "thinking": {"type": (str,), "budget_tokens": (int,)},
    "tool_choice": {"type": (str,), "name": (str,)},
}
_ANY_BLOCK: _Fields = {"type": (str,), "cache_control": (dict, NoneType)}
_BLOCKS: Mapping[str, _Fields] = {
    "text": {"text": (str,)},
    "thinking": {"thinking": (str,), "signature": (str,)},
    "tool_use": {"id": (str,), "name": (str,)},
    "tool_result": {"tool_use_id": (str,), "content": (str, list, NoneType)},
    "image": {"source": (dict,)},
    "document": {"source": (dict,)},
}
_SOURCE: _Fields = {"type": (str,), "data": (str,)}
_TOOL: _Fields = {"name": (str,), "description": (str, NoneType), "input_schema": (dict,), **_ANY_BLOCK}


# -- Converse and CountTokens ------------------------------------------------------------------------


def check_types(operation: Operation, body: Json) -> None:
    """Raise the ServiceError for the first field of a Converse or CountTokens body that has the wrong type."""
    _check_shape(_input_shape(operation), body, "")
    fields = body.get("additionalModelRequestFields")
    if fields is not None:
        if not isinstance(fields, dict):
            raise _malformed("additionalModelRequestFields", "dictionary")
        _check_model_fields(fields, MODEL_ERRORS)
    for index, tool in enumerate((body.get("toolConfig") or {}).get("tools") or ()):
        schema = ((tool.get("toolSpec") or {}).get("inputSchema") or {}).get("json", {})
        _check_schema(schema, f"tools.{index}.custom.input_schema", MODEL_ERRORS)
    text_format = (body.get("outputConfig") or {}).get("textFormat") or {}
    schema = ((text_format.get("structure") or {}).get("jsonSchema") or {}).get("schema")
    if schema is not None:
        _check_schema(_read(schema), "output_config.format.schema", MODEL_ERRORS)


@cache
def _input_shape(operation: Operation) -> Any:
    from botocore.session import Session

    return Session().get_service_model("bedrock-runtime").operation_model(operation).input_shape


def _check_shape(shape: Any, value: Any, path: str) -> None:
    if getattr(shape, "is_document_type", False):  # any JSON will do
        return
    kinds = _JSON_TYPES.get(shape.type_name, (object,))
    if not _fits(value, kinds):
        raise _malformed(path, _NAMES.get(kinds[-1], "value"))
    if shape.type_name == "structure":
        _check_members(shape, value, path)
    elif shape.type_name == "list":
        for index, each in enumerate(value):
            _check_shape(shape.member, each, f"{path}.{index}")
    elif shape.type_name == "map":
        for key, each in value.items():
            _check_shape(shape.value, each, f"{path}.{key}")
    least = shape.metadata.get("min")
    if least is not None and shape.type_name in ("integer", "float", "list"):
        size, what = (len(value), "length") if shape.type_name == "list" else (value, "value")
        if size < least:
            raise _violated(f"at '{path}'", f"Member must have {what} greater than or equal to {least}")


def _check_members(shape: Any, value: Json, path: str) -> None:
    members = shape.members
    for name, given in value.items():
        if given is not None and name in members:
            _check_shape(members[name], given, f"{path}.{name}" if path else name)
    missing = [name for name in shape.required_members if "location" not in members[name].serialization]
    if shape.is_tagged_union:
        missing += [name for name in value if name in members]
    for name in missing:  # what is in the path or a header is not looked for here
        if value.get(name) is None:
            where = f"{path}.{name}" if path else name
            raise _violated(f"null at '{where}'", "Member must not be null")


def _read(schema: str) -> Any:
    try:
        return json.loads(schema)
    except ValueError:
        return None


def _malformed(path: str, wanted: str) -> ServiceError:
    return invalid(
        f"Malformed input request: {path or 'the body'}: expected a {wanted}, please reformat your input and try again."
    )


def _violated(what: str, constraint: str) -> ServiceError:
    return invalid(f"1 validation error detected: Value {what} failed to satisfy constraint: {constraint}")


# -- Anthropic Messages ------------------------------------------------------------------------------


def check_messages_types(body: Json) -> None:
    """Raise the ServiceError for the first field of an Anthropic Messages body that has the wrong type."""
    _check_model_fields(body)
    for index, message in enumerate(body.get("messages") or ()):
        where = f"messages.{index}"
        _check_fields(_dictionary(message, where), {"role": (str,), "content": (str, list)}, where)
        _check_blocks(message.get("content"), f"{where}.content")
    _check_blocks(body.get("system"), "system")
    for index, tool in enumerate(body.get("tools") or ()):
        _check_marked(tool, _TOOL, f"tools.{index}")
        _check_schema(tool.get("input_schema", {}), f"tools.{index}.custom.input_schema")


def _check_model_fields(fields: Json, prefix: str = "") -> None:
    _check_fields(fields, _MESSAGES_FIELDS, "", prefix)
    for name, inside in _INSIDE.items():
        _check_fields(fields.get(name) or {}, inside, name, prefix)
    for index, each in enumerate(fields.get("stop_sequences") or ()):
        if not isinstance(each, str):
            raise _wrong(f"stop_sequences.{index}", str, prefix)
    schema = ((fields.get("output_config") or {}).get("format") or {}).get("schema")
    if schema is not None:
        _check_schema(schema, "output_config.format.schema", prefix)


def _check_blocks(content: Any, where: str) -> None:
    for index, block in enumerate(content if isinstance(content, list) else ()):
        path = f"{where}.{index}"
        _check_marked(block, _ANY_BLOCK, path)
        kind = block.get("type")
        _check_fields(block, _BLOCKS.get(kind, {}), path)
        if kind in ("image", "document"):
            _check_fields(block.get("source") or {}, _SOURCE, f"{path}.source")
        if kind == "tool_result":
            _check_blocks(block.get("content"), f"{path}.content")


def _check_marked(given: Any, fields: _Fields, where: str) -> None:
    """A block or a tool, which may carry a `cache_control`."""
    _check_fields(_dictionary(given, where), fields, where)
    _check_fields(given.get("cache_control") or {}, _CONTROL, f"{where}.cache_control")


def _check_fields(given: Json, fields: _Fields, where: str, prefix: str = "") -> None:
    for name, kinds in fields.items():
        if name in given and not _fits(given[name], kinds):
            raise _wrong(f"{where}.{name}" if where else name, kinds[0], prefix)


def _dictionary(value: Any, where: str) -> Json:
    if not isinstance(value, dict):
        raise _wrong(where, dict)
    return value


def _wrong(where: str, wanted: type, prefix: str = "") -> ServiceError:
    return invalid(f"{prefix}{where}: Input should be a valid {_NAMES[wanted]}")


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    # Python counts true and false as whole numbers, JSON does not.
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds or object in kinds)


# -- JSON schemas ------------------------------------------------------------------------------------

_KEYWORDS: _Fields = {
    "$ref": (str,),
    "enum": (list,),
    "exclusiveMinimum": (int, float),
    "format": (str,),
    "maximum": (int, float),
    "maxLength": (int,),
    "minimum": (int, float),
    "minItems": (int,),
    "minLength": (int,),
    "properties": (dict,),
    "required": (list,),
    "type": (str, list),
}
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")


def _check_schema(schema: Any, where: str, prefix: str = "") -> None:
    if not isinstance(schema, dict) or not _is_schema(schema):
        raise invalid(f"{prefix}{where}: JSON schema is invalid. It must match JSON Schema draft 2020-12")


def _is_schema(schema: Any) -> bool:
    """Whether the keywords that an answer is made from have their types, here and further inside."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict) or any(
        name in schema and not _fits(schema[name], kinds) for name, kinds in _KEYWORDS.items()
    ):
        return False
    kind = schema.get("type", "")
    names = [*schema.get("required", ()), *(kind if isinstance(kind, list) else ())]
    inside = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    for several in (schema[name] for name in _ALTERNATIVES if name in schema):
        if not isinstance(several, list) or not several:
            return False
        inside += several
    return all(isinstance(name, str) for name in names) and all(map(_is_schema, inside))
