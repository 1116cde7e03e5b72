"""Which model answers behind an opaque ARN: named by the user, or asked of the control plane."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from cachepoint.bedrock.bounded import Bounded
from cachepoint.bedrock.swallowed import forgive
from cachepoint.bedrock.warn import warn_once
from cachepoint.core.provider.rules import parse_model_id

ASK_AGAIN_SECONDS = 120.0
"""A control plane that failed is asked again after this time: it may have throttled, or permission come since."""
ARNS_KEPT = 1_000
"""A gateway that makes a profile for each of its tenants sees ever more of them; one forgotten is asked for again."""

_asked: Bounded[str, str | None] = Bounded(ARNS_KEPT)
_failed: Bounded[str, float] = Bounded(ARNS_KEPT)
_lock = threading.Lock()


def base_model(model_id: str, named: Mapping[str, str], control_client: Any = None) -> str | None:
    """The id whose rules and prices apply to `model_id`; None when nobody says.

    `named` maps ARNs to base ids. `control_client` is a boto3 `bedrock` client, asked for an ARN until it answers.
    """
    if model_id in named:
        base = named[model_id]
        if parse_model_id(base).base is None or "." not in base:
            warn_once(
                f"named:{model_id}:{base}",
                f"{base!r}, given as the model behind {model_id!r}, is no Bedrock model id, so no checkpoint is placed "
                "and no price known: name one such as anthropic.claude-sonnet-4-6",
            )
        return base
    if parse_model_id(model_id).base is not None:
        return model_id
    found = _ask(model_id, control_client) if control_client is not None else None
    if found is None:
        warn_once(
            f"opaque:{model_id}",
            f"cachepoint cannot tell which model answers behind {model_id!r}, so it places no checkpoint and knows no "
            "price: pass base_models={arn: model id} (base_model_id= on the LangChain class) or a control_client",
        )
    return found


def _ask(arn: str, control_client: Any) -> str | None:
    with _lock:
        if arn in _asked:
            return _asked[arn]
        if arn in _failed and time.monotonic() - _failed[arn] < ASK_AGAIN_SECONDS:
            return None
    try:
        found = _answer(arn, control_client)
    except Exception as error:  # noqa: BLE001 - no permission, no endpoint, no such profile: the user is told what to pass
        forgive(error, "control plane")
        with _lock:
            _failed[arn] = time.monotonic()
        return None
    with _lock:
        _asked[arn] = found
    return found


def _answer(arn: str, control_client: Any) -> str | None:
    if ":provisioned-model/" in arn:
        throughput = control_client.get_provisioned_model_throughput(provisionedModelId=arn)
        return str(throughput.get("foundationModelArn") or throughput["modelArn"])
    if ":application-inference-profile/" in arn or ":inference-profile/" in arn:
        models = control_client.get_inference_profile(inferenceProfileIdentifier=arn)["models"]
        return str(models[0]["modelArn"])
    return None
