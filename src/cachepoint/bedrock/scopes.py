"""Where a client's calls belong, told from the client without asking anybody.

Whatever cannot be told is "": two accounts that are taken for one are planned for a little worse, no more.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from typing import Any

from cachepoint.core.provider.rules import parse_model_id
from cachepoint.core.traffic.pool import Scope


def scope_of(client: Any, model: str, base: str | None, api: str) -> Scope:
    """What a call's entries are kept apart by: account, endpoint, Region, model id and API; with its base model."""
    endpoint = _text(_attribute(client, "meta", "endpoint_url"))
    if "@" in endpoint:  # a user and a password may stand before it, and a scope's name lands in profiles
        endpoint = _digest(endpoint)
    name = "|".join((_account(client), endpoint, region_of(client) or "", model, api))
    return Scope(name, parse_model_id(base or model).base or base or model)


def region_of(client: Any) -> str | None:
    """The Region a client calls; None where it does not tell."""
    return _text(_attribute(client, "meta", "region_name")) or None


def _account(client: Any) -> str:
    """The account's number where it is known, else a digest that stands for it."""
    signer = _attribute(client, "_request_signer")
    token = _attribute(signer, "_auth_token")
    if api_key := _text(_attribute(token, "token")) or _text(_attribute(_kept(token, "_frozen_token"), "token")):
        return _digest(api_key)
    credentials = _attribute(signer, "_credentials")
    number = _text(_kept(credentials, "_account_id")) or _text(_kept(credentials, "account_id"))
    if number.isdecimal():
        return number
    # Credentials that renew themselves do so when `access_key` is read, which is I/O (botocore's
    # RefreshableCredentials), or raise (aiobotocore's, for there it has to be awaited); those that wait for the first
    # request to fetch any have None here until then.
    return _account_of_key(_text(_kept(credentials, "_access_key")) or _text(_kept(credentials, "access_key")))


@lru_cache(maxsize=1024)
def _account_of_key(access_key: str) -> str:
    """The account inside an access key id, which stays the same when temporary keys are renewed."""
    if not access_key:
        return ""
    if len(access_key) == 20 and access_key[:4] in ("AKIA", "ASIA"):
        try:
            number = int.from_bytes(base64.b32decode(access_key[4:])[:6], "big")
        except ValueError:
            return _digest(access_key)
        return str((number & 0x7FFFFFFFFF80) >> 7)
    return _digest(access_key)


def _attribute(owner: Any, *names: str) -> Any:
    """An attribute of an attribute; None where there is none, or it cannot be had: a client may be anybody's proxy."""
    try:
        for name in names:
            owner = getattr(owner, name, None)
    except Exception:  # noqa: BLE001 - the client's own error, and no reason to leave a call uncached
        return None
    return owner


def _kept(owner: Any, name: str) -> Any:
    """What an object keeps under a name, without running code of its that would compute it."""
    try:
        return vars(owner).get(name)
    except Exception:  # noqa: BLE001 - an object without a `__dict__`, or a proxy whose `__dict__` fails
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _digest(secret: str) -> str:
    return hashlib.blake2b(secret.encode(errors="surrogatepass"), digest_size=8).hexdigest()
