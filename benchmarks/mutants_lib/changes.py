"""The small mistakes a mutant is made of: one change of one place in a module's syntax tree.

What is left alone is what no test of behaviour can or should pin: annotations and type aliases, decorators, docstrings,
the text of errors, `__all__`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

COMPARED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_OPPOSED = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
"""Turning one of these is already the negation of a condition that it is all of."""
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
UNORDERED = frozenset({"min", "max", "isinstance", "issubclass"})
"""Calls whose arguments are not swapped: the order means nothing, or the mistake could not live for a moment."""
DROPPED = (ast.AugAssign, ast.Delete, ast.Continue, ast.Break, ast.Raise)


@dataclass(frozen=True)
class Change:
    """One mistake: where it is, of what kind, and how it reads before and after.

    `function` is the line of the innermost function's first decorator or `def`, None outside functions. `make` puts
    the mistake into the tree it was found in.
    """

    line: int
    function: int | None
    kind: str
    before: str
    after: str
    make: Callable[[], None]


def literals(trees: Iterable[ast.Module]) -> dict[str, str]:
    """For every string that is a value of a `Literal` type, another value of it."""
    others: dict[str, str] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                values = [each.value for each in ast.walk(node.slice) if isinstance(each, ast.Constant)]
                words = [value for value in values if isinstance(value, str)]
                for word, other in zip(words, (*words[1:], *words[:1]), strict=True):
                    if word != other:
                        others.setdefault(word, other)
    return others


def changes(tree: ast.Module, words: Mapping[str, str]) -> list[Change]:
    """Every change of a module, in the order of its lines; the same list for the same source."""
    return list(_Walk(words).of(tree, None))


class _Walk:
    """Walks a tree, and offers the changes of each node with how to put them in its place."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words

    def of(self, node: ast.AST, function: int | None) -> Iterator[Change]:
        """The changes below a node."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        for name, value in ast.iter_fields(node):
            if _is_left_alone(node, name):
                continue
            children = value if isinstance(value, list) else [value]
            for index, child in enumerate(children):
                if not isinstance(child, ast.AST) or _says_nothing(child, node):
                    continue
                for kind, other in self._offers(child, node, name):
                    yield _change(kind, child, other, function, value if isinstance(value, list) else node, index, name)
                if not isinstance(child, ast.Raise):
                    yield from self.of(child, function)

    def _offers(self, node: ast.AST, parent: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
        if name == "test" or (name == "ifs" and isinstance(parent, ast.comprehension)):
            assert isinstance(node, ast.expr)
            yield from _conditions(node, loops=isinstance(parent, ast.While))
        match node:
            case ast.Compare():
                for place, op in enumerate(node.ops):
                    ops = [*node.ops[:place], COMPARED[type(op)](), *node.ops[place + 1 :]]
                    yield "comparison", ast.Compare(node.left, ops, node.comparators)
            case ast.BoolOp():
                yield "condition", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
            case ast.BinOp() if type(node.op) in COMPUTED and not (_is_text(node.left) or _is_text(node.right)):
                yield "arithmetic", ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right)
            case ast.UnaryOp(op=ast.USub()) if not isinstance(node.operand, ast.Constant):
                yield "arithmetic", node.operand
            case ast.Constant():
                for other in self._constants(node.value):
                    yield "constant", ast.Constant(other)
            case ast.Call():
                yield from _calls(node)
        if isinstance(node, ast.stmt):
            yield from _statements(node)

    def _constants(self, value: object) -> Iterator[Any]:
        if isinstance(value, bool):
            yield not value
        elif isinstance(value, int | float):
            yield value + 1
            if value not in (0, 1):
                yield value * 2
        elif isinstance(value, str) and value in self._words:
            yield self._words[value]


def _conditions(node: ast.expr, *, loops: bool) -> Iterator[tuple[str, ast.AST]]:
    opposed = isinstance(node, ast.Compare) and isinstance(node.ops[0], _OPPOSED) and len(node.ops) == 1
    if not opposed:
        yield "condition", ast.UnaryOp(ast.Not(), node)
    if not loops:
        yield "condition", ast.Constant(value=True)
    yield "condition", ast.Constant(value=False)


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in OPPOSITES:
        yield "condition", ast.Call(ast.Name(OPPOSITES[name], ast.Load()), node.args, node.keywords)
    if name in UNORDERED or any(isinstance(each, ast.Starred) for each in node.args):
        return
    for place in range(len(node.args) - 1):
        one, other = node.args[place : place + 2]
        if ast.dump(one) != ast.dump(other):
            swapped = [*node.args[:place], other, one, *node.args[place + 2 :]]
            yield "arguments", ast.Call(node.func, swapped, node.keywords)


def _statements(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    inside = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
    if inside or isinstance(node, (*DROPPED, ast.Expr)):
        yield "statement", ast.Pass()
    if isinstance(node, ast.AugAssign) and type(node.op) in COMPUTED:
        yield "arithmetic", ast.AugAssign(node.target, COMPUTED[type(node.op)](), node.value)


def _change(
    kind: str, node: ast.AST, other: ast.AST, function: int | None, holder: list[Any] | ast.AST, index: int, name: str
) -> Change:
    def make() -> None:
        placed = ast.copy_location(other, node)
        if isinstance(holder, list):
            holder[index] = placed
        else:
            setattr(holder, name, placed)

    assert isinstance(node, ast.expr | ast.stmt)
    return Change(node.lineno, function, kind, _short(node), _short(other), make)


def _is_left_alone(node: ast.AST, name: str) -> bool:
    match node:
        case ast.ClassDef():
            return name != "body"
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return name not in ("body", "args")
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass")):
            return name == "args"
        case ast.FormattedValue():
            return name == "format_spec"
    return name == "annotation"


def _says_nothing(node: ast.AST, parent: ast.AST) -> bool:
    """A docstring, a type alias, `__all__`, what only a type checker imports, the text around what is formatted."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name()], value=ast.Subscript()):
            return isinstance(parent, ast.Module)
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Constant():
            return isinstance(parent, ast.JoinedStr)
    return False


def _is_text(node: ast.expr) -> bool:
    """Whether an operand is written as a sequence, of which only `+` makes sense: a test that gets there would fail."""
    return isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 70 else f"{text[:67]}..."
