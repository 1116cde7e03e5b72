"""Orders under which equal sets are equal, and histories whose beginning stands still."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.ordering import DocumentKey, document_key, shown_after, stable_order, without_duplicates
from cachepoint.core.trimming import start_in_chunks

Document = tuple[str | None, str | None, int | None, str]

documents = st.tuples(
    st.none() | st.sampled_from("abc"), st.none() | st.sampled_from("xyz"), st.none() | st.integers(0, 3), st.text()
)


def text(document: Document) -> str:
    return document[3]


def key(document: Document) -> DocumentKey:
    return document_key(document[3], document_id=document[0], source=document[1], position=document[2])


@given(st.lists(documents, max_size=8).flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_any_permutation_gives_the_same_order(lists: tuple[list[Document], list[Document]]) -> None:
    one, other = (without_duplicates(found, repr) for found in lists)

    assert stable_order(one, text=repr, key=key) == stable_order(other, text=repr, key=key)


@given(st.lists(documents, max_size=8))
def test_nothing_is_lost_but_duplicates(found: list[Document]) -> None:
    ordered = stable_order(found, text=text, key=key)
    assert {text(document) for document in ordered} == {text(document) for document in found}
    assert len({text(document) for document in ordered}) == len(ordered)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=6))
def test_a_session_keeps_the_order_in_which_documents_were_first_shown(turns: list[list[str]]) -> None:
    shown: tuple[object, ...] = ()
    for found in turns:
        ordered = stable_order(found, text=str, key=str, order="session", shown=shown)
        shown = shown_after(shown, ordered, str)
        assert [document for document in shown if document in found] == ordered


def test_documents_go_by_id_then_by_source_and_position_then_by_content() -> None:
    found: list[Document] = [
        (None, None, None, "loose"),
        (None, "page.html", 900, "second part"),
        (None, "page.html", 100, "first part"),
        ("doc-2", "zzz", 0, "two"),
        ("doc-1", "zzz", 5, "one"),
    ]
    ordered = [text(document) for document in stable_order(found, text=text, key=key)]
    assert ordered == ["one", "two", "first part", "second part", "loose"]


def test_a_users_key_that_ties_still_gives_one_order() -> None:
    assert stable_order("ba", text=str, key=lambda _: 0) == stable_order("ab", text=str, key=lambda _: 0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_a_trimmed_history_fits_and_its_start_moves_seldom(sizes: list[int]) -> None:
    limit, keep = 100, 50
    starts = [start_in_chunks(sizes[: end + 1], limit, keep) for end in range(len(sizes))]
    assert starts == sorted(starts)
    for end, start in enumerate(starts):
        assert sum(sizes[start : end + 1]) <= limit or start == end
    # Between two moves at least limit - keep has to come in.
    assert len(set(starts)) - 1 <= sum(sizes) / (limit - keep)


def test_one_item_above_the_limit_is_kept() -> None:
    assert start_in_chunks([10, 500], 100, 50) == 1
