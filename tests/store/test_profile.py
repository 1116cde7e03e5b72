"""A profile is written whole or not at all, and what is in one is checked: no file keeps prompts from being cached."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner.kit import SCOPE, Caller, Request, asks, prose

from cachepoint import MemoryStore
from cachepoint.core.traffic.view import Step
from cachepoint.errors import ConfigurationError
from cachepoint.store import _profile

Json = Any
KNOWN = prose(3_000, "known")


@pytest.mark.parametrize("path", [".", "", "/", None, 3, "a\0b", Path()])
def test_what_names_no_file_is_refused_as_a_path(path: Any) -> None:
    for use in (MemoryStore().save, MemoryStore.load):
        with pytest.raises(ConfigurationError, match=r"a profile's path is .*; give that of a file"):
            use(path)


def chat(number: int) -> Request:
    return asks(f"Question {number}? " * 20, system=[KNOWN])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """A small profile that has something of everything."""
    caller, path = Caller(), tmp_path_factory.mktemp("good") / "profile.json"
    caller.calls((chat(number) for number in range(6)), after=100)
    caller.calls((asks(prose(1_500, "context") + f"\n\nQuestion {n}? " * 50) for n in range(4)), after=400)
    caller.store.save(path)
    content = json.loads(path.read_text())
    (model,) = content["models"].values()
    by_role = {row[1][0]: (digest, row) for digest, row in model["seen"].items()}
    model["seen"] = dict(by_role.values())
    assert {"system_end", "cut"} <= set(by_role)
    assert all(model[part] for part in ("calibration", "won", "proven", "curves", "seen"))
    assert all(scope["entries"] for scope in content["scopes"].values())
    return content


# -- writing --------------------------------------------------------------------------------------


def left_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_two_who_write_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    stores = [MemoryStore() for _ in range(2)]
    for store, boundaries in zip(stores, (10, 900), strict=True):
        for _ in range(2):
            store.visit(
                SCOPE, [Step(bytes([n % 256]) * 15 + b"%c" % (n // 256), "cut") for n in range(boundaries)], None, 1.0
            )
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: stores[number % 2].save(tmp_path / "profile.json"), range(24)))
    assert left_in(tmp_path) == ["profile.json"]
    assert MemoryStore.load(tmp_path / "profile.json").key in {store.key for store in stores}


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_profile_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "profile.json"
    path.write_text("the old one")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "another name")

    owner: Any = os if failing == "fsync" else Path
    monkeypatch.setattr(owner, failing, full)
    with pytest.raises(OSError, match="No space left") as raised:
        MemoryStore().save(path)
    assert raised.value.filename == str(path)
    assert (path.read_text(), left_in(tmp_path)) == ("the old one", ["profile.json"])


def test_a_folder_that_is_not_there_is_named_by_the_path_given(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        MemoryStore().save(tmp_path / "absent" / "profile.json")
    assert raised.value.filename == str(tmp_path / "absent" / "profile.json")


def test_a_profile_is_its_owners_and_replaces_a_link_in_place_of_following_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("somebody else's")
    path = tmp_path / "profile.json"
    path.symlink_to(tmp_path / "elsewhere")
    MemoryStore().save(path)
    assert (tmp_path / "elsewhere").read_text() == "somebody else's"
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


def test_calls_go_on_while_a_profile_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, seen = MemoryStore(), list[int]()
    whole = json.dump

    def dump(*given: Any, **options: Any) -> None:
        calling = threading.Thread(target=lambda: seen.append(len(store.visit(SCOPE, [], None, 1.0).seen)))
        calling.start()
        calling.join(10)
        whole(*given, **options)

    monkeypatch.setattr(json, "dump", dump)
    store.save(tmp_path / "profile.json")
    assert seen == [0]


def test_whatever_a_store_has_come_to_know_it_can_read_again(tmp_path: Path) -> None:
    store = MemoryStore()
    caller = Caller(store=store, tokens_per_estimate=0.02)  # as no text is; of images it can be
    caller.calls((chat(number) for number in range(20)), after=100)
    caller.now += 1e9  # a clock that jumps by thirty years, and back
    caller.call(chat(20))
    caller.now -= 1e9
    caller.calls((chat(number) for number in range(21, 24)), after=100)
    store.save(tmp_path / "profile.json")
    assert MemoryStore.load(tmp_path / "profile.json").evidence(SCOPE, caller.now).rows


# -- reading --------------------------------------------------------------------------------------


def paths(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every part of a document, the whole first."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from paths(part, (*path, name))


def changed(document: Json, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Json:
    """A copy in which a change was made to what holds a part."""
    holder = [copy.deepcopy(document)]
    part: Any = holder
    for name in (0, *path)[:-1]:
        part = part[name]
    change(part, (0, *path)[-1])
    return holder[0]


def set_to(value: Any) -> Callable[[Any, Any], None]:
    return lambda holder, name: holder.__setitem__(name, value)


def is_cached(store: MemoryStore) -> bool:
    """Whether of ten plain calls with one long system prompt the last has a checkpoint."""
    caller = Caller(store=store, now=2_000_000.0)
    plans = [caller.call(chat(number))[0] for number in range(100, 110)]
    return bool(plans[-1].checkpoints)


def load(content: str, folder: Path) -> MemoryStore:
    (folder / "profile.json").write_text(content, "utf-8")
    return MemoryStore.load(folder / "profile.json")


POOL, SEEN, SCOPES = ("models", "model"), ("models", "model", "seen"), ("scopes", SCOPE.name)
DIGEST = "ab" * 16
KIND = ["system_end", True, 0]
WRONG: list[tuple[tuple[Any, ...], Any, str]] = [
    ((), [], "what is in it is a list of 0, and is to be an object"),
    ((), None, "is None"),
    (("version",), "3", "version is '3', and is to be a whole number"),
    (("version",), True, "version is True"),
    (("key",), "", "key is '', and is to be 16 to 64 bytes in hexadecimal digits"),
    (("key",), "00" * 15, "key is"),
    (("key",), "00" * 65, "key is"),
    (("key",), "zz" * 32, "key is"),
    (("key",), " ".join(["00"] * 32), "key is"),
    (("models",), [], "models is"),
    ((*POOL, "calibration"), [1.0, 0.1], r"models\['model'\].calibration is a list of 2, and is to be a list of 3"),
    ((*POOL, "calibration", 0), 1e-9, r"calibration\[0\] is 1e-09, and is to be a number from 0.1 to 10"),
    ((*POOL, "calibration", 0), -1, r"calibration\[0\] is -1"),
    ((*POOL, "calibration", 0), math.nan, "NaN is no number"),
    ((*POOL, "calibration", 1), math.inf, "Infinity is no number"),
    ((*POOL, "calibration", 2), 10**400, r"calibration\[2\] is 1000"),
    ((*POOL, "calibration", 2), True, r"calibration\[2\] is True"),
    ((*POOL, "won"), 1e300, "won is 1e"),
    ((*POOL, "won"), -1, "won is -1"),
    ((*POOL, "proven"), "system_end", "proven is 'system_end', and is to be a list"),
    ((*POOL, "proven"), ["sytem_end"], r"proven\[0\] is 'sytem_end', and is to be one of"),
    ((*POOL, "curves"), {}, "curves is"),
    ((*POOL, "curves", 0, 0), ["system_end", True], r"curves\[0\]\[0\] is a list of 2"),
    ((*POOL, "curves", 0, 0), ["system_end", False, 99], r"\[0\]\[2\] is 99, and is to be a whole number from -1"),
    ((*POOL, "curves", 0, 0), ["system_end", False, -2], r"\[0\]\[2\] is -2"),
    ((*POOL, "curves", 0, 1), [1.0], r"curves\[0\]\[1\] is a list of 1"),
    ((*POOL, "curves", 0, 1, 3), -0.5, r"curves\[0\]\[1\]\[3\] is -0.5"),
    ((*POOL, "curves", 0, 1, 3), 1e308, r"curves\[0\]\[1\]\[3\] is 1e\+308"),
    ((*SEEN, DIGEST), [2.0, KIND, KIND], r"seen\['abab.*'\] is a list of 3"),
    ((*SEEN, "ab"), [2.0, KIND, KIND, []], r"seen\['ab'\] is 'ab', and is to be 16 bytes"),
    ((*SEEN, DIGEST), [2.0, KIND, KIND, [0.0] * 6 + [1e6]], "is to be no more gaps than its 2 visits"),
    ((*SEEN, DIGEST), [-1, KIND, KIND, []], r"\[0\] is -1"),
    ((*SCOPES, "model"), "another", "is 'another', and is to be the model of the scope"),
    ((*SCOPES, "splits_trusted"), "no", "splits_trusted is 'no', and is to be true or false"),
    ((*SCOPES, "entries", DIGEST), ["2h", 1.0, []], r"\[0\] is '2h', and is to be one of '5m', '1h'"),
    ((*SCOPES, "entries", DIGEST), ["5m", 1e18, []], r"\[1\] is 1e\+18"),
    ((*SCOPES, "entries", DIGEST), ["5m", 1.0, ["ab"]], r"\[2\]\[0\] is 'ab'"),
]


@pytest.mark.parametrize(("path", "value", "said"), WRONG)
def test_a_wrong_part_is_named_with_what_it_is_to_be(
    good: Json, tmp_path: Path, path: tuple[Any, ...], value: Any, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        load(json.dumps(changed(good, path, set_to(value))), tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'profile.json'} is no profile: ")
    assert "Write one with MemoryStore.save" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no JSON"),
        ('{"version": 3', "is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"version": 3, "version": 3}', "'version' stands twice"),
        ('{"version": ' + "9" * 5_000 + "}", "digits"),
        ('{"version": 3, "x": "' + "x" * 2_000_000 + '"}', "more than 1,000,000 bytes"),
        ('{"version": 4}', "a profile of version 4; this cachepoint reads 2 and 3"),
    ],
)
def test_what_is_no_document_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, said: str
) -> None:
    monkeypatch.setattr(_profile, "_MOST_BYTES", 1_000_000)
    (tmp_path / "profile.json").write_text(content)
    with pytest.raises(ConfigurationError, match=said):
        MemoryStore.load(tmp_path / "profile.json", boundaries_kept=1)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, said in (
        ("absent", "No such file"), ("", "no regular file"), ("pipe", "no regular file"), ("bytes", "no JSON"),
        ("a\0b", "give that of a file"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=said):
            MemoryStore.load(tmp_path / name)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """As root, `save("/dev/null")` left a file there, in which everybody's output was kept."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="no regular file"):
        MemoryStore().save(pipe)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_what_a_later_release_adds_within_the_version_is_not_looked_at(good: Json, tmp_path: Path) -> None:
    more = copy.deepcopy(good)
    for part in (more, more["models"]["model"], more["scopes"][SCOPE.name]):
        part["more"] = ["something"]
    assert is_cached(load(json.dumps(more), tmp_path))


def test_what_was_refused_and_a_learned_minimum_are_no_certainty_in_a_profile(good: Json, tmp_path: Path) -> None:
    old = copy.deepcopy(good)
    old["models"]["model"]["learned_minimum"] = 10**9
    old["scopes"][SCOPE.name]["refused"] = ["tools", "system", "messages"]
    assert is_cached(load(json.dumps(old), tmp_path))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(),
    st.sampled_from(["", "5m", "1h", DIGEST, "system_end", 10**400]),
    st.lists(st.floats(0, 10), max_size=8), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=120)
@given(st.data())
def test_a_changed_profile_is_refused_or_caches_a_plain_chat_all_the_same(
    good: Json, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mutant = good
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([each for each in paths(mutant) if each]))
        change = data.draw(st.one_of(VALUES.map(set_to), st.just(lambda holder, name: holder.__delitem__(name))))
        mutant = changed(mutant, path, change)
        if not mutant:
            break
    try:
        store = load(json.dumps(mutant), tmp_path_factory.getbasetemp())
    except ConfigurationError:
        return
    assert is_cached(store)
