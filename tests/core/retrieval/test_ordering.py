"""Orders under which equal sets are equal."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.retrieval.ordering import (
    DOCUMENTS_KEPT,
    SESSIONS_KEPT,
    DocumentKey,
    SessionOrders,
    content_digest,
    document_key,
    most_relevant,
    shown_after,
    stable_order,
)

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


# -- keys -----------------------------------------------------------------------------------------

RANDOM, TIMED = "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
DIGEST = content_digest("text")


@pytest.mark.parametrize(
    ("document_id", "metadata", "expected"),
    [
        ("doc", {"source": "a.pdf", "page": 2, "start_index": 7}, (0, "doc", 2, 7)),
        ("doc", {}, (0, "doc", -1, -1)),
        (TIMED, {"source": "a.pdf"}, (0, TIMED, -1, -1)),
        (RANDOM, {"source": "a.pdf", "page": 2, "start_index": 7}, (1, "a.pdf", 2, 7)),
        (f"x{RANDOM}", {"source": "a.pdf"}, (0, f"x{RANDOM}", -1, -1)),
        ("", {"source": "a.pdf"}, (1, "a.pdf", -1, -1)),
        (None, {"source": 7}, (1, "7", -1, -1)),
        (RANDOM, {"source": "", "page": 2, "start_index": 7}, (2, "", -1, -1)),
        (None, {}, (2, "", -1, -1)),
    ],
)
def test_a_key_is_the_id_else_the_source_else_the_content(
    document_id: str | None, metadata: dict[str, object], expected: tuple[int, str, int, int]
) -> None:
    assert document_key("text", document_id=document_id, metadata=metadata) == DocumentKey(*expected, DIGEST)


@pytest.mark.parametrize("first", range(4))
def test_sources_and_parts_come_in_their_order(first: int) -> None:
    sources = ("file_path", "url", "source", "file_name")[first:]
    parts = ("page", "page_label", "row", "seq_num")[first:]
    key = document_key(
        "text", metadata={**{name: name for name in sources[::-1]}, **{p: i for i, p in enumerate(parts)}}
    )
    assert (key.name, key.part) == (sources[0], 0)


@pytest.mark.parametrize(
    ("page", "part"),
    [
        (0, 0),
        ("12", 12),
        ("0", 0),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, -1),
        ("ix", -1),
        ("1.5", -1),
        (2.0, -1),
        (None, -1),
    ],
)
def test_a_part_is_a_number_that_may_be_written_out(page: object, part: int) -> None:
    assert document_key("text", metadata={"source": "a", "page": page}).part == part


def test_a_negative_page_is_none() -> None:
    assert document_key("text", metadata={"source": "a", "page": -1, "row": 4}).part == 4


def test_an_offset_that_is_given_goes_before_the_metadatas() -> None:
    metadata = {"source": "a", "start_index": 5}
    assert [document_key("text", metadata=metadata, offset=offset).offset for offset in (None, 0, 9)] == [5, 0, 9]


def test_a_digest_is_of_the_text_and_nothing_else() -> None:
    assert content_digest("a") != content_digest("b")
    assert len(content_digest("a")) == 32
    assert content_digest("\ud800")


# -- ranks, orders and memory ---------------------------------------------------------------------


def test_duplicates_share_a_rank_and_all_of_them_stay() -> None:
    assert most_relevant("abcab", text=str) == [(1, "a"), (2, "b"), (3, "c"), (1, "a"), (2, "b")]
    assert most_relevant("abcab", text=str, at_most=1) == [(1, "a"), (1, "a")]
    assert most_relevant("abc", text=str, at_most=0) == []


def test_those_shown_before_come_first_in_their_order_and_only_in_a_session() -> None:
    shown = ("c", "x", "a")
    assert stable_order("abcd", text=str, key=str, order="session", shown=shown) == ["c", "a", "b", "d"]
    assert stable_order("dcba", text=str, key=str, shown=shown) == ["a", "b", "c", "d"]


def test_the_first_of_equal_texts_in_the_order_stays() -> None:
    found = [("b", "same"), ("a", "same"), ("c", "other")]
    ordered = stable_order(found, text=lambda item: item[1], key=lambda item: item[0])
    assert ordered == [("a", "same"), ("c", "other")]


def test_the_oldest_not_shown_now_is_forgotten_first() -> None:
    assert shown_after("abc", "d", 4) == ("a", "b", "c", "d")
    assert shown_after("abc", "d", 3) == ("b", "c", "d")
    assert shown_after("abc", "ad", 2) == ("a", "d")
    assert shown_after("abc", "abcd", 2) == ("a", "b", "c", "d")


def test_a_session_keeps_to_the_number_of_documents() -> None:
    """a and b are forgotten for c and d; when all four come again, those two are the first shown."""
    orders = SessionOrders(documents_kept=2)
    for found in ("ab", "cd"):
        orders.ordered("talk", found, text=str, key=str)
    assert orders.ordered("talk", "abcd", text=str, key=str) == ["c", "d", "a", "b"]


def test_a_copy_is_the_same_memory_and_a_pickle_starts_afresh() -> None:
    orders = SessionOrders(3, 4)
    orders.ordered("talk", "z", text=str, key=str)
    assert copy.deepcopy(orders) is orders
    unpickled = pickle.loads(pickle.dumps(orders))
    assert unpickled.ordered("talk", "az", text=str, key=str) == ["a", "z"]
    assert orders.ordered("talk", "az", text=str, key=str) == ["z", "a"]
    assert unpickled.__reduce__() == (SessionOrders, (3, 4))


def test_a_thousand_sessions_of_five_hundred_documents_are_kept_unless_told() -> None:
    assert SessionOrders().__reduce__() == (SessionOrders, (SESSIONS_KEPT, DOCUMENTS_KEPT))
    assert (SESSIONS_KEPT, DOCUMENTS_KEPT) == (1_000, 500)
