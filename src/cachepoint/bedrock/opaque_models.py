"""Which model answers behind an opaque ARN: named by the user, or asked of the control plane."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from cachepoint._forks import Lock
from cachepoint.bedrock.bounded import Bounded
from cachepoint.bedrock.swallowed import forgive
from cachepoint.bedrock.warn import warn_once
from cachepoint.core.provider.rules import parse_model_id

ASK_AGAIN_SECONDS = 120.0
"""A control plane that failed is asked again after this time: it may have throttled, or permission come since."""
MOST_ASKED_AT_ONCE = 8
"""A control plane that hangs holds this many threads and no more; other ARNs are asked about later."""
ARNS_KEPT = 1_000
"""A gateway that makes a profile for each of its tenants sees ever more of them; one forgotten is asked for again."""

_asked: Bounded[str, str | None] = Bounded(ARNS_KEPT)
_failed: Bounded[str, float] = Bounded(ARNS_KEPT)
_asking: dict[str, threading.Thread] = {}
_lock = Lock()


def base_model(model_id: str, named: Mapping[str, str], control_client: Any = None) -> str | None:
    """The id whose rules and prices apply to `model_id`; None as long as nobody says.

    `named` maps ARNs to base ids. `control_client` is a boto3 `bedrock` client, asked about an ARN in a thread of its
    own until it answers: no call waits for it, the first ones go out as they were written.
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
    if (known := learned(model_id)) is not None:
        return known
    if control_client is not None and _ask(model_id, control_client):
        return None
    warn_once(
        f"opaque:{model_id}",
        f"cachepoint cannot tell which model answers behind {model_id!r}, so it places no checkpoint and knows no "
        "price: pass base_models={arn: model id} (base_model_id= on the LangChain class) or a control_client",
    )
    return None


def learned(arn: str) -> str | None:
    """What the control plane has answered by now; None where it has not, or does not know."""
    with _lock.held:
        return _asked.get(arn)


def _ask(arn: str, control_client: Any) -> bool:
    """Have the control plane asked, off the path of the call; False where it does not know or failed a while ago."""
    asking = threading.Thread(target=_learn, args=(arn, control_client), name="cachepoint-control", daemon=True)
    with _lock.held:
        for ended in [each for each, thread in _asking.items() if not thread.is_alive()]:  # as all have after a fork
            del _asking[ended]
        if arn in _asking:
            return True
        if arn in _asked or (arn in _failed and time.monotonic() - _failed[arn] < ASK_AGAIN_SECONDS):
            return False
        if len(_asking) < MOST_ASKED_AT_ONCE:
            try:
                asking.start()
            except RuntimeError as error:  # no thread can be had now
                forgive(error, "control plane")
                return True
            _asking[arn] = asking
    return True


def _learn(arn: str, control_client: Any) -> None:
    found, failed = None, False
    try:
        found = _answer(arn, control_client)
    except Exception as error:  # noqa: BLE001 - no permission, no endpoint, no such profile: the user is told what to pass
        forgive(error, "control plane")
        failed = True
    with _lock.held:
        _asking.pop(arn, None)
        if failed:
            _failed[arn] = time.monotonic()
        else:
            _asked[arn] = found


def _answer(arn: str, control_client: Any) -> str | None:
    if ":provisioned-model/" in arn:
        throughput = control_client.get_provisioned_model_throughput(provisionedModelId=arn)
        return str(throughput.get("foundationModelArn") or throughput["modelArn"])
    if ":application-inference-profile/" in arn or ":inference-profile/" in arn:
        models = control_client.get_inference_profile(inferenceProfileIdentifier=arn)["models"]
        return str(models[0]["modelArn"])
    return None
