"""The mistakes that `make mutants` makes, one by one."""

from __future__ import annotations

import ast

import pytest
from mutants_lib.changes import changes, literals
from mutants_lib.runs import Observed, choose

WORDS = {"5m": "1h", "1h": "5m"}


def mutants(source: str) -> list[str]:
    """Every mutant of a source, as it reads."""
    made = []
    for index in range(len(changes(ast.parse(source), WORDS))):
        tree = ast.parse(source)
        changes(tree, WORDS)[index].make()
        made.append(ast.unparse(ast.fix_missing_locations(tree)))
    return made


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("a < b", ["pass", "a <= b"]),
        ("x = a is b in c", ["x = a is not b in c", "x = a is b not in c"]),
        ("x = a + b", ["x = a - b"]),
        ("x = -a", ["x = a"]),
        ("x = 3", ["x = 4", "x = 6"]),
        ("x = 1.0", ["x = 2.0"]),
        ("x = True", ["x = False"]),
        ("x = '5m'", ["x = '1h'"]),
        ("x = 'other'", []),
        ("x += y", ["pass", "x -= y"]),
        ("x.y = z", ["pass"]),
        ("x = f(a, b)", ["x = f(b, a)"]),
        ("x = f(a, *b)", []),
        ("x = min(a, b)", ["x = max(a, b)"]),
        ("x = a and b", ["x = a or b"]),
        ("x = a if b else c", [f"x = a if {test} else c" for test in ("not b", "True", "False")]),
        ("x = a if b == c else d", [f"x = a if {test} else d" for test in ("True", "False", "b != c")]),
        ("while a:\n    b()", ["while not a:\n    b()", "while False:\n    b()", "while a:\n    pass"]),
    ],
)
def test_each_kind_of_mistake_is_made(source: str, made: list[str]) -> None:
    assert mutants(source) == made


@pytest.mark.parametrize(
    "source",
    [
        "'''A docstring.'''",
        "x: int | None",
        "Key = tuple[str, int | None]",
        "__all__ = ['5m']",
        "if TYPE_CHECKING:\n    import a",
        "@d(True)\ndef f(x: 'A | B') -> 'A | B':\n    '''A docstring.'''",
        "class A(B | C):\n    '''A docstring.'''",
        "x = isinstance(y, A | B)",
        "x = 'a' + b",
        "x = f'{a:2} 5m'",
    ],
)
def test_what_no_test_should_pin_is_left_alone(source: str) -> None:
    assert mutants(source) == []


def test_an_error_may_be_dropped_but_not_reworded() -> None:
    assert mutants("raise E('5m', 1 + 1)") == ["pass"]


def test_values_of_a_literal_are_swapped_in_a_circle() -> None:
    assert literals([ast.parse("A = Literal['a', 'b', 'c']\nB = Literal['b', 'd']\nC = Literal['e']")]) == {
        "a": "b", "b": "c", "c": "a", "d": "b",
    }  # fmt: skip


def test_a_change_knows_the_function_it_is_in() -> None:
    source = "a = 1\n@d\ndef f(x=1):\n    def g():\n        return 1\n    return lambda: 1\n"
    assert [(each.line, each.function) for each in changes(ast.parse(source), {})] == [
        (1, None),
        (3, 2),
        (5, 4),
        (6, 2),
    ]


def test_a_mutant_meets_its_own_rooms_tests_first_and_quick_before_slow() -> None:
    core = "tests/core"
    here, there = ("room/module.py", 3), ("room/module.py", 9)
    tests = {
        "stories/test_a.py::slow": Observed(2.0, frozenset({here})),
        "stories/test_a.py::quick": Observed(1.0, frozenset({here, there})),
        f"{core}/room/test_module.py::b": Observed(3.0, frozenset({here})),
        f"{core}/other/test_module.py::c": Observed(0.1, frozenset()),
    }
    stories = ["stories/test_a.py::quick", "stories/test_a.py::slow"]
    assert choose(tests, "room", here) == [[f"{core}/room/test_module.py::b"], stories]
    assert choose(tests, "room", there) == [stories[:1]]
    assert choose(tests, "room", ("room/module.py", 1)) == []
    assert choose(tests, "room", None)[1] == [f"{core}/other/test_module.py::c", *stories]
