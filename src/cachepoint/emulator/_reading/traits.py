"""What the emulator knows of a model besides its row in the model table: its family, and framing tokens.

Facts, from recorded totals (docs/rules.md, C2 and C6, and the short calls of the recordings):
- `Hello` alone costs 8 tokens on Claude: one of text, three that frame a message, four that open the answer.
- The tokens that open the answer follow the last checkpoint, so they are never cached (R3.5).
- Tools cost a fixed block. On Claude 3.5 Haiku a part of it follows the system prompt: with a checkpoint on
  the tools alone, a five-token question leaves 145 tokens of input.
- A forced tool choice and strict schemas add tokens that no text shows, after the system prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from cachepoint.core.provider.rules import ModelRule, parse_model_id


@dataclass(frozen=True, slots=True)
class Framing:
    """Tokens a prompt costs besides its texts.

    `message` frames each message. `opening` opens the answer after everything else; after tool results or
    with tools it can differ. `tools` is what the first tool costs before the system prompt and `tools_tail`
    after it. `forced_choice` and `strict_tools` come after the system prompt as well.
    """

    message: int = 3
    opening: int = 3
    opening_with_tools: int = 3
    opening_after_result: int = 3
    tools: int = 500
    tools_tail: int = 0
    forced_choice: int = 90
    strict_tools: int = 280
    output_schema: int = 250


_CLAUDE = Framing()
_NOVA = Framing(
    message=1,
    opening=0,
    opening_with_tools=0,
    opening_after_result=0,
    tools=340,
    forced_choice=0,
    strict_tools=0,
)

# First match wins; ids without geo prefix.
_FRAMINGS: tuple[tuple[str, Framing], ...] = (
    (r"claude-haiku-4-5", replace(_CLAUDE, opening_after_result=6)),
    (r"claude-sonnet-4-5", replace(_CLAUDE, opening_with_tools=2, opening_after_result=2)),
    (r"claude-opus-4-8", replace(_CLAUDE, opening=2, opening_with_tools=2, opening_after_result=2, tools=295)),
    (
        r"claude-3-5-haiku",
        replace(_CLAUDE, opening=4, opening_with_tools=4, opening_after_result=4, tools=148, tools_tail=136),
    ),
    (
        r"claude-(?:(?:sonnet|opus)-4-(?:1-|2)|3)",
        replace(_CLAUDE, opening=4, opening_with_tools=4, opening_after_result=4, tools=350),
    ),
    (r"nova-2", replace(_NOVA, tools=850)),
    (r"nova", _NOVA),
    (r"claude", _CLAUDE),
)
_OTHERS = Framing(tools=300)


@dataclass(frozen=True, slots=True)
class Traits:
    """A model's family, and what its prompts cost besides their texts."""

    claude: bool
    nova: bool
    framing: Framing


@lru_cache(maxsize=1024)
def _traits(base: str) -> Traits:
    return Traits(
        claude="anthropic.claude" in base,
        nova="amazon.nova" in base,
        framing=next((framing for pattern, framing in _FRAMINGS if re.search(pattern, base)), _OTHERS),
    )


def traits_of(model_id: str, rule: ModelRule) -> Traits:
    """The traits of a model id; an opaque id has those of its row's name."""
    return _traits(parse_model_id(model_id).base or rule.name)
