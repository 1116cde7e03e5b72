"""Places in a request, and what a prompt knows when nothing more is said."""

from __future__ import annotations

import pytest

from cachepoint.core.prompt.prompt import NO_HINTS, Block, Boundary, ListKey, Mark, Media, Prompt, Where

ENDS = (Boundary(0, None, b"a", 3.0), Boundary(1, 7, b"b", 5.0), Boundary(1, None, b"c", 9.0))


@pytest.mark.parametrize(
    ("where", "path", "list_key"),
    [
        (Where("tools", None, 2), "tools[2]", ("tools", None)),
        (Where("system", None, 0), "system[0]", ("system", None)),
        (Where("messages", 3, 1), "messages[3].content[1]", ("messages", 3)),
        (Where("messages", 0, 2, nested=0), "messages[0].content[2].toolResult.content[0]", ("messages", 0)),
        (Where("messages", None, 0), "messages", ("messages", None)),
    ],
)
def test_a_place_is_written_as_users_read_it(where: Where, path: str, list_key: ListKey) -> None:
    assert (where.path, where.list_key) == (path, list_key)


def test_the_end_of_a_block_is_behind_its_cuts() -> None:
    prompt = Prompt((), ENDS, (0, 2), (), 9.0, "claude")
    assert (prompt.end(0), prompt.end(1)) == (ENDS[0], ENDS[2])


def test_a_prompt_of_which_no_more_is_known_has_no_sections_and_no_turns() -> None:
    assert Prompt((), (), (), (), 0.0, "other") == Prompt(
        blocks=(), boundaries=(), ends=(), marks=(), tokens=0.0, tokenizer="other", tools_end=-1, system_end=-1,
        history_end=-1, last_user=-1, previous_end=-1, has_turns=False, attached=False, plain=frozenset(), settings=(),
    )  # fmt: skip


def test_a_block_is_text_that_says_nothing_special_unless_told() -> None:
    where = Where("system", None, 0)
    assert Block(where, "text", None, 4, 1.0) == Block(
        where, "text", None, 4, 1.0, blank=False, textual=True, context=False, volatile=False
    )
    assert Mark(where, None, "5m") == Mark(where, None, "5m", raw=None, leading=False)
    assert Media("image", 10).written == 0
    assert not NO_HINTS
