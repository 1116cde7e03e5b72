"""Orders under which equal sets are equal, and histories whose beginning stands still."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.retrieval.ordering import (
    DocumentKey,
    SessionOrders,
    document_key,
    most_relevant,
    shown_after,
    stable_order,
)
from cachepoint.core.retrieval.trimming import start_in_chunks

Document = tuple[str | None, str | None, int | None, str]

documents = st.tuples(
    st.none() | st.sampled_from("abc"), st.none() | st.sampled_from("xyz"), st.none() | st.integers(0, 3), st.text()
)


def text(document: Document) -> str:
    return document[3]


def key(document: Document) -> DocumentKey:
    return document_key(document[3], document_id=document[0], metadata={"source": document[1]}, offset=document[2])


@given(st.lists(documents, max_size=8).flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_any_permutation_gives_the_same_order(lists: tuple[list[Document], list[Document]]) -> None:
    one, other = ([key(document) for document in stable_order(found, text=text, key=key)] for found in lists)

    assert one == other


@given(st.lists(documents, max_size=8))
def test_nothing_is_lost_but_duplicates(found: list[Document]) -> None:
    ordered = stable_order(found, text=text, key=key)
    assert {text(document) for document in ordered} == {text(document) for document in found}
    assert len({text(document) for document in ordered}) == len(ordered)


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.integers(1, 5))
def test_the_most_relevant_are_so_many_different_ones(found: list[str], at_most: int) -> None:
    wanted = list(dict.fromkeys(found))[:at_most]

    assert most_relevant(found, text=str, at_most=at_most) == [
        (wanted.index(each) + 1, each) for each in found if each in wanted
    ]


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=6))
def test_a_session_keeps_the_order_in_which_documents_were_first_shown(turns: list[list[str]]) -> None:
    orders = SessionOrders()
    shown: list[str] = []
    for found in turns:
        ordered = orders.ordered("talk", found, text=str, key=str)
        shown = list(dict.fromkeys([*shown, *ordered]))
        assert [document for document in shown if document in found] == ordered


def test_a_document_that_was_shown_stays_where_its_duplicate_is_found_as_well() -> None:
    orders = SessionOrders()
    orders.ordered("talk", ["b same", "c other"], text=lambda found: found[2:], key=str)
    ordered = orders.ordered("talk", ["a same", "c other", "b same"], text=lambda found: found[2:], key=str)
    assert ordered == ["b same", "c other"]


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=8), max_size=12), st.integers(8, 12))
def test_a_session_remembers_so_many_documents_and_those_shown_now(turns: list[list[int]], at_most: int) -> None:
    shown: tuple[object, ...] = ()
    for now in turns:
        before, shown = shown, shown_after(shown, now, at_most)
        assert len(shown) <= at_most
        assert set(now) <= set(shown) <= {*before, *now}
        assert [each for each in before if each in shown] == list(shown[: len(set(before) & set(shown))])


def test_the_session_used_least_recently_is_forgotten_first() -> None:
    orders = SessionOrders(sessions_kept=2)
    for session in ("one", "two", "one", "three"):
        orders.ordered(session, "z", text=str, key=str)
    one, two = ("".join(orders.ordered(session, "az", text=str, key=str)) for session in ("one", "two"))
    assert (one, two) == ("za", "az")


def test_threads_share_a_session() -> None:
    orders = SessionOrders()
    names = [f"{number:03}" for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: orders.ordered("talk", [name], text=str, key=str), names))
    first = orders.ordered("talk", names, text=str, key=str)
    assert sorted(first) == names
    assert orders.ordered("talk", first[::-1], text=str, key=str) == first


def test_a_key_that_fails_leaves_the_session_as_it_was() -> None:
    orders = SessionOrders()
    orders.ordered("talk", "z", text=str, key=str)
    with pytest.raises(ValueError, match="invalid literal"):
        orders.ordered("talk", "az", text=str, key=int)
    assert orders.ordered("talk", "az", text=str, key=str) == ["z", "a"]


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


@pytest.mark.parametrize(
    "part", [{"page": 10}, {"page_label": "10"}, {"row": 10}, {"seq_num": 10}, {"page": 10, "page_label": "ix"}]
)
def test_pages_and_rows_go_by_number(part: dict[str, object]) -> None:
    earlier = dict.fromkeys(part, 9)
    tenth = document_key("a", metadata={"source": "a.pdf", **part, "start_index": 0})
    ninth = document_key("b", metadata={"source": "a.pdf", **earlier, "start_index": 500})
    assert (ninth.part, tenth.part) == (9, 10)
    assert ninth < tenth


def test_a_file_says_more_than_what_readers_call_its_source() -> None:
    in_one, in_other = (document_key("", metadata={"source": "1", "file_path": name}) for name in ("a.pdf", "b.pdf"))
    assert (in_one.name, in_other.name) == ("a.pdf", "b.pdf")


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
