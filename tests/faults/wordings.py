"""Thirty ways in which a service may word that it refuses a checkpoint, in five languages.

The first four are the real service's (docs/rules.md, V1 to V7); the rest are made up, for nobody knows the next one.
"""

from __future__ import annotations

WORDINGS = (
    "Malformed input request: #/system/1: extraneous key [cachePoint] is not permitted, please reformat your input.",
    "You invoked an unsupported model or your request did not allow prompt caching. See the documentation.",
    "The model returned the following errors: system.0.cache_control: Extra inputs are not permitted",
    "The model returned the following errors: messages.0.content.1.type: Field required",
    "This model doesn't support the cachePoint field.",
    "Prompt cache is not available for this model in this Region.",
    "Caching is not enabled for this account.",
    "system.1: Input tag 'cache_point' found using 'type' does not match any of the expected tags",
    "This model does not support explicit cache checkpoints in system.",
    "1 validation error detected: Value at 'system.2.member' failed to satisfy constraint: one and only one member set",
    "Unexpected field type.",
    "The format of the value at system.1 is incorrect. Correct the format and try your request again.",
    "A maximum of 2 blocks may be marked for reuse in one request.",
    "ttl: '1h' is not one of the lifetimes offered in this Region.",
    "Extended lifetime is in preview and your account is not on the list.",
    "Unknown parameter in input.",
    "The request could not be parsed by the model provider.",
    "Reuse of context is a paid feature; ask your administrator to enable it.",
    "",
    "null",
    "Der Cachepunkt ist in diesem Abschnitt nicht erlaubt.",
    "Das Modell kennt das Feld an dieser Stelle nicht.",
    "Der Zwischenspeicher steht in dieser Region nicht zur Verfügung.",
    "Ce modèle ne prend pas en charge la mise en cache des invites.",
    "Le champ n'est pas autorisé à cet emplacement.",
    "El modelo no admite puntos de control de caché.",
    "El campo no está permitido en esta posición.",
    "このモデルはキャッシュチェックポイントをサポートしていません。",
    "この位置ではフィールドを使用できません。",
    "リクエストの形式が正しくありません。",
)
