"""Which model answers behind an opaque ARN: named by the user, or asked of the control plane."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from cachepoint._forks import Lock
from cachepoint.bedrock.bounded import Bounded
from cachepoint.bedrock.swallowed import forgive
from cachepoint.bedrock.warn import warn_once
from cachepoint.bedrock.wire.refusals import error_name
from cachepoint.core.provider.rules import parse_model_id

GIVE_UP_SECONDS = 2.0
"""An answer takes a tenth of a second. A control plane that has given none by now has failed, whatever time-outs the
user's client has (boto3's own are 60 seconds and five attempts); should it answer yet, that is taken."""
ASK_AGAIN_SECONDS = 120.0
"""A control plane that failed is asked again after this time: it may have throttled, or permission come since."""
MOST_ASKED_AT_ONCE = 8
"""Other ARNs are asked about later."""
MOST_HELD = 4 * MOST_ASKED_AT_ONCE
"""Control planes that hang hold so many threads and no more, each until its client's own time-outs."""
_PROVISIONED = ":provisioned-model/"
ARNS_KEPT = 1_000
"""A gateway that makes a profile for each of its tenants sees ever more of them; one forgotten is asked for again."""


@dataclass(frozen=True)
class _Asking:
    """A question to the control plane that is under way, or hangs."""

    client: Any
    running: threading.Thread | asyncio.Task[None]
    began: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        """Also where nothing runs it any more: after a fork, or on a loop that stopped."""
        if isinstance(self.running, threading.Thread):
            return not self.running.is_alive()
        return self.running.done() or not self.running.get_loop().is_running()

    @property
    def hangs(self) -> bool:
        return time.monotonic() - self.began >= GIVE_UP_SECONDS


_asked: Bounded[str, str | None] = Bounded(ARNS_KEPT)
_failed: Bounded[str, tuple[float, str]] = Bounded(ARNS_KEPT)
"""When the control plane failed on an ARN, and with what."""
_asking: dict[str, _Asking] = {}
_lock = Lock()


def base_model(
    model_id: str, named: Mapping[str, str], control_client: Any = None, *, may_ask: bool = True
) -> str | None:
    """The id whose rules and prices apply to `model_id`; None as long as nobody says.

    `named` maps ARNs to base ids. `control_client` is a `bedrock` client of boto3, asked about an ARN in a thread of
    its own, or of aiobotocore, asked in a task of its own, until it answers, if it `may_ask`: no call waits for it, the
    first ones go out as they were written.
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
    if control_client is not None and (not may_ask or _ask(model_id, control_client)):
        return None
    why = "" if control_client is None else _what_failed(model_id)
    warn_once(
        f"opaque:{model_id}",
        f"cachepoint cannot tell which model answers behind {model_id!r}{why}, so it places no checkpoint and knows no "
        "price: pass base_models={arn: model id} (base_model_id= on the LangChain class) or a control_client",
    )
    return None


def learned(arn: str) -> str | None:
    """What the control plane has answered by now; None where it has not, or does not know."""
    with _lock.held:
        return _asked.get(arn)


def _what_failed(arn: str) -> str:
    """What became of the question to the control plane, as the part of a sentence; "" where none was asked."""
    operation = "GetProvisionedModelThroughput" if _PROVISIONED in arn else "GetInferenceProfile"
    with _lock.held:
        if arn in _failed:
            return f" ({operation} failed with {_failed[arn][1]})"
        return "" if arn in _asked else f" ({operation} is not answered)"


def _ask(arn: str, control_client: Any) -> bool:
    """Have the control plane asked, off the path of the call; False where it does not know, or does not answer now."""
    with _lock.held:
        for ended in [each for each, asking in _asking.items() if asking.ended]:
            del _asking[ended]
        if arn in _asked or (arn in _failed and time.monotonic() - _failed[arn][0] < ASK_AGAIN_SECONDS):
            return False
        if arn in _asking:
            return not _asking[arn].hangs
        hanging = [asking.client for asking in _asking.values() if asking.hangs]
        if any(client is control_client for client in hanging):
            return False
        if len(_asking) - len(hanging) < MOST_ASKED_AT_ONCE and len(_asking) < MOST_HELD:
            try:
                _asking[arn] = _Asking(control_client, _started(arn, control_client))
            except RuntimeError as error:  # no thread can be had now
                forgive(error, "control plane")
    return True


def _started(arn: str, control_client: Any) -> threading.Thread | asyncio.Task[None]:
    """The question, asked in a task where the client has to be awaited and its loop runs here, else in a thread."""
    if _is_asynchronous(control_client):
        try:
            return asyncio.get_running_loop().create_task(_learn_async(arn, control_client))
        except RuntimeError:  # no loop runs here
            pass
    thread = threading.Thread(target=_learn, args=(arn, control_client), name="cachepoint-control", daemon=True)
    thread.start()
    return thread


def _is_asynchronous(control_client: Any) -> bool:
    try:
        operations = (control_client._make_api_call, control_client.get_inference_profile)
    except Exception:  # noqa: BLE001 - a client that is nobody's; what it answers shows what it is
        return False
    return any(map(iscoroutinefunction, operations))


def _learn(arn: str, control_client: Any) -> None:
    try:
        answer = _question(arn, control_client)
        if isawaitable(answer):
            answer = asyncio.run(_in_time(answer))
        found = _model_in(answer)
    except Exception as error:  # noqa: BLE001 - no permission, no endpoint, no such profile: the user is told what to pass
        _note_failure(arn, error)
    else:
        _note(arn, found)


async def _learn_async(arn: str, control_client: Any) -> None:
    try:
        answer = _question(arn, control_client)
        found = _model_in(await _in_time(answer) if isawaitable(answer) else answer)
    except Exception as error:  # noqa: BLE001 - as above
        _note_failure(arn, error)
    else:
        _note(arn, found)


async def _in_time(answer: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(answer, GIVE_UP_SECONDS)


def _note(arn: str, found: str | None) -> None:
    with _lock.held:
        _asking.pop(arn, None)
        _asked[arn] = found


def _note_failure(arn: str, error: Exception) -> None:
    forgive(error, "control plane")
    with _lock.held:
        _asking.pop(arn, None)
        _failed[arn] = time.monotonic(), error_name(error)


def _question(arn: str, control_client: Any) -> Any:
    """What the control plane answers, or what has to be awaited for it; None for an ARN it is not asked about."""
    if _PROVISIONED in arn:
        return control_client.get_provisioned_model_throughput(provisionedModelId=arn)
    if ":application-inference-profile/" in arn or ":inference-profile/" in arn:
        return control_client.get_inference_profile(inferenceProfileIdentifier=arn)
    return None


def _model_in(answer: Mapping[str, Any] | None) -> str | None:
    if answer is None:
        return None
    model = answer["models"][0]["modelArn"] if "models" in answer else None
    arn = str(model or answer.get("foundationModelArn") or answer["modelArn"])
    ref = parse_model_id(arn)  # a model has one name, whoever names it; only GovCloud's ARNs tell their prices
    return arn if ref.base is None or ref.geo else ref.base
