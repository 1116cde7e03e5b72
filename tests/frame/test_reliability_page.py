"""docs/reliability.md has every warning and error of cachepoint as the source has it, and the constants it quotes."""

from __future__ import annotations

import ast
import re
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from itertools import product
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

from cachepoint import errors
from cachepoint.core.planning import reasons

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")
VARIES = "…"
"""Stands on the page for what differs from one message to the next."""
DEPTH = 6
"""Functions inside one another that are followed to what a message says; more than there are."""

CLASSES = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
GIVEN_AT = {
    "warn": 0,
    "warn_once": 1,
    "Warn": 1,
    "forgive": 2,
    "warning": 0,
    "exception": 0,
    "print": 0,
    "ArgumentTypeError": 0,
}
"""Where the message stands among the arguments of what warns, logs or prints."""

ELSEWHERE = {
    # A message says so of a call in it: LlamaIndex raises it from there, in LangChain it is in `invalid_tool_calls`.
    "the call of the tool … is not whole (stop reason: …), so it was not run; raise max_tokens, or ask for less in one "
    "call": "bedrock/wire/stop_reasons.py",
    # The warning of one room of core, which gives no warnings itself.
    "cachepoint: … reports a usage in which …; it is …": "core/provider/usage.py",
    # A ValueError, as upstream's.
    "the response has no tool call; pass tool_required=True, or error_on_no_tool_call=False. A model that thinks "
    "cannot be forced to call: ask for the call in the prompt, or set thinking=None": "llama_index/_llm.py",
    # Answers of the emulator over HTTP that the service does not give.
    "The emulator answers to localhost and loopback addresses only; name other hosts in `hosts` or --allow-host.": (
        "emulator/_http.py"
    ),
    "A body has 25000000 bytes at most.": "emulator/_http.py",
}
"""Messages that none of these is given, by the module that has them."""

REPAIRED = {
    f"cachepoint: the checkpoint … {done.replace('{0.to}', VARIES)}: …"  # a Repair prints itself
    for done in reasons._REPAIRED.values()
}
CAUSES = {*get_args(reasons.Obstacle), "refused", "first_in_list", "over_cap", "ttl_order", "ttl_unknown"}
"""Why a checkpoint that the user wrote is left out or changed (core/planning/legality.py)."""

PASSED_ON = {
    "bedrock/warn.py": "warnings that the program makes errors of, which are logged",
    "catalogue/table.py": "errors of a row, with the row's name before them",
    "cli/__init__.py": "errors, printed",
    "cli/demo/__init__.py": "errors of botocore, printed; and how far the demo has come",
    "cli/serve.py": "errors, printed",
    "core/exchange.py": "repairs",
    "llama_index/_request/tools.py": "errors that stand on messages",
}
"""Modules that give what is made elsewhere."""

Texts = frozenset[str]
Given = Mapping[str, Texts]
"""What the parameters of a function are given."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
UNKNOWN = frozenset({VARIES})


class Module:
    """The source of one module, read for the messages that it gives."""

    def __init__(self, name: str) -> None:
        self.name = name
        path = SOURCES / name.replace(".", "/")
        self.path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        self.nodes = list(ast.walk(ast.parse(self.path.read_text("utf-8"))))
        # An inner function comes after the one it is in, so that the innermost stays.
        self.inside = {
            node: function for function in self.nodes if isinstance(function, Function) for node in within(function)
        }
        bases = {
            each.name: {called(base) for base in each.bases} for each in self.nodes if isinstance(each, ast.ClassDef)
        }
        self.classes = CLASSES | {name for name, those in bases.items() if those & CLASSES}

    def messages(self) -> Iterator[str]:
        """Every message that the module raises, warns of, logs or prints as an error."""
        for node in self.nodes:
            message = self._message(node)
            if message is not None:
                function = self.inside.get(node)
                for given in self._given(function, DEPTH):
                    yield from self.texts(message, function, given, DEPTH)

    def _message(self, node: ast.AST) -> ast.expr | None:
        if not isinstance(node, ast.Call):
            return None
        name = called(node.func)
        at = 0 if name in self.classes else GIVEN_AT.get(name)
        if name == "print" and "file" not in {keyword.arg for keyword in node.keywords}:
            return None
        starred = any(isinstance(each, ast.Starred) for each in node.args)  # a pair that was made as a Warn
        return None if at is None or starred or len(node.args) <= at else node.args[at]

    def _given(self, function: Function | None, depth: int) -> list[Given]:
        """What a function's parameters are given by each of its callers in the module."""
        found: list[Given] = []
        for call in self.nodes if function and depth else ():
            if isinstance(call, ast.Call) and function is not None and called(call.func) == function.name:
                caller = self.inside.get(call)
                found += [
                    self._bound(call, function, caller, given, depth - 1) for given in self._given(caller, depth - 1)
                ]
        return [each for at, each in enumerate(found) if each not in found[:at]] or [{}]

    def _bound(self, call: ast.Call, function: Function, caller: Function | None, given: Given, depth: int) -> Given:
        names = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
        pairs = [*zip(names, call.args, strict=False), *((each.arg or "", each.value) for each in call.keywords)]
        return {name: sentences(self.texts(value, caller, given, depth)) for name, value in pairs}

    def texts(self, node: ast.expr, function: Function | None, given: Given, depth: int) -> Texts:
        """The texts that an expression may have, with … for what cannot be told."""

        def each(part: ast.expr) -> Texts:
            return self.texts(part, function, given, depth)

        match node:
            case ast.Constant(None):
                return frozenset()
            case ast.Constant(str() as text):
                return frozenset({text})
            case ast.JoinedStr(parts):
                return joined(map(each, parts))
            case ast.FormattedValue(ast.Name(name), -1, spec) if name.isupper():  # a constant
                return frozenset(format(self._constant(name), how) for how in (each(spec) if spec else [""]))
            case ast.FormattedValue(value, -1):
                return sentences(each(value))
            case ast.BinOp(left, ast.Add(), right):
                return joined([each(left), each(right)])
            case ast.IfExp(_, yes, no):
                return each(yes) | each(no)
            case ast.BoolOp(ast.Or(), values):
                return frozenset().union(*map(each, values))
            case ast.Name(name):
                return given.get(name) or self._assigned(name, function, given, depth)
            case ast.Call():
                return self._made(node, function, given, depth)
        return UNKNOWN

    def _made(self, call: ast.Call, function: Function | None, given: Given, depth: int) -> Texts:
        """What str.format gives, or a function of cachepoint's where it is called so."""
        match call.func:
            case ast.Attribute(template, "format"):
                pairs = [*((str(at), each) for at, each in enumerate(call.args))]
                pairs += [(each.arg or "", each.value) for each in call.keywords]
                fields = {name: sentences(self.texts(value, function, given, depth)) for name, value in pairs}
                templates = self.texts(template, function, given, depth)
                return frozenset().union(*(filled(text, fields) for text in templates))
            case ast.Name(name) if depth:
                return self._returned(call, name, function, given, depth)
        return UNKNOWN

    def _assigned(self, name: str, function: Function | None, given: Given, depth: int) -> Texts:
        """What a name may stand for: what the function assigns to it, else the module's constant."""
        found: Texts = frozenset()
        for node in ast.walk(function) if function and depth else ():
            match node:
                case ast.Assign([ast.Name(target)], value) | ast.NamedExpr(ast.Name(target), value) if target == name:
                    found |= self.texts(value, function, given, depth - 1)
                case ast.AugAssign(ast.Name(target), ast.Add(), value) if target == name:
                    found |= joined([found, self.texts(value, function, given, depth - 1)])
                case ast.For(ast.Tuple([_, ast.Name(target)]), ast.Call(ast.Attribute(ast.Name(table), "items"))):
                    entries = self._constant(table)
                    if target == name and isinstance(entries, dict):
                        found |= frozenset(entries.values())
        text = self._constant(name)
        return found or (frozenset({text}) if isinstance(text, str) else UNKNOWN)

    def _returned(self, call: ast.Call, name: str, caller: Function | None, given: Given, depth: int) -> Texts:
        """What a function of cachepoint's gives where it is called so."""
        home = getattr(self._constant(name), "__module__", "")
        module = read(home) if home.startswith("cachepoint.") else None
        found: Texts = frozenset()
        for function in module.nodes if module else ():
            if module and isinstance(function, Function) and function.name == name:
                bound = self._bound(call, function, caller, given, depth - 1)
                for node in ast.walk(function):
                    if isinstance(node, ast.Return) and node.value:
                        found |= module.texts(node.value, function, bound, depth - 1)
        return found or UNKNOWN

    def _constant(self, name: str) -> object:
        return vars(import_module(self.name)).get(name)


def within(function: Function) -> Iterator[ast.AST]:
    return (node for statement in function.body for node in ast.walk(statement))


def called(function: ast.expr) -> str:
    match function:
        case ast.Name(name) | ast.Attribute(_, name):
            return name
    return ""


def joined(parts: Iterable[Texts]) -> Texts:
    return frozenset(re.sub(f"{VARIES}+", VARIES, "".join(each)) for each in product(*parts))


def sentences(texts: Texts) -> Texts:
    """Parts of sentences as they are, and … for names and values."""
    return frozenset(text if len(re.findall(r"(?:^|\s)[A-Za-z]", text)) > 2 else VARIES for text in texts)


def filled(template: str, fields: Mapping[str, Texts]) -> Texts:
    """What str.format makes of a template."""
    pieces: list[Texts] = []
    for at, (text, field, _, _) in enumerate(Formatter().parse(template)):
        pieces += [frozenset({text}), *([] if field is None else [fields.get(field or str(at), UNKNOWN)])]
    return joined(pieces)


@cache
def read(name: str) -> Module:
    return Module(name)


def has_no_words(message: str) -> bool:
    return not re.search("[a-z]", message.replace("cachepoint", "").replace("%s", ""))


def covers(general: str, message: str) -> bool:
    """Whether a message is another one with something in place of a …"""
    pattern = ".+".join(map(re.escape, general.split(VARIES)))
    return general != message and general.count(VARIES) > 0 and re.fullmatch(pattern, message) is not None


@cache
def found() -> Mapping[str, Texts]:
    """The messages of each module, by its path in the package."""
    by_path: dict[str, Texts] = {}
    for path in sorted((SOURCES / "cachepoint").rglob("*.py")):
        if path.name != "__main__.py":
            module = read(".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__"))
            by_path[path.relative_to(SOURCES / "cachepoint").as_posix()] = joined(
                [frozenset(text.replace("%s", VARIES) for text in module.messages())]
            )
    return by_path


def messages() -> Texts:
    """All messages; those that another of their module covers are left to it."""
    told = [{text for text in texts if not has_no_words(text)} for texts in found().values()]
    return frozenset(text for texts in told for text in texts if not any(covers(each, text) for each in texts))


# -- the page --------------------------------------------------------------------------------------

CODE = re.compile(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)")


def rows(heading: str) -> list[list[str]]:
    """The cells of all tables under a heading, up to the next of its rank, without the heads."""
    rank, _ = heading.split(" ", 1)
    section = re.split(rf"^{rank} ", PAGE.split(f"\n{heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    tables = [table.splitlines()[2:] for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)]
    return [re.split(r" \| ", line.strip("| ")) for table in tables for line in table]


def codes(cell: str) -> list[str]:
    return [code for _, code in CODE.findall(cell)]


REASONS = "### Why a checkpoint of yours was changed"


def on_the_page() -> list[str]:
    """The messages that the page explains; behind each may stand its class in brackets."""
    of_reasons = [cells[0] for cells in rows(REASONS)]
    cells = [each[0] for each in rows("## What to do about a message") if each[0] not in of_reasons]
    return [code for cell in cells for code in codes(re.sub(r"\(`\w+`[^()]*\)", "", cell))]


def test_the_page_has_each_message_of_the_source_and_no_other() -> None:
    page, source = set(on_the_page()), messages() | REPAIRED | ELSEWHERE.keys()
    assert not sorted(source - page), "docs/reliability.md lacks these messages"
    assert not sorted(page - source), "no module gives these messages of docs/reliability.md"


def test_each_message_has_one_meaning_and_a_remedy() -> None:
    assert len(on_the_page()) == len(set(on_the_page()))
    for cells in rows("## What to do about a message"):
        assert all(cell.strip() for cell in cells), cells


@pytest.mark.parametrize(("message", "path"), ELSEWHERE.items())
def test_a_message_that_is_made_elsewhere_stands_there(message: str, path: str) -> None:
    module = read(f"cachepoint/{path}".removesuffix(".py").replace("/", "."))
    nodes = [node for node in module.nodes if isinstance(node, ast.JoinedStr | ast.Constant)]
    assert any(message in module.texts(node, None, {}, DEPTH) for node in nodes)


def test_only_these_modules_pass_messages_on() -> None:
    assert {path for path, texts in found().items() if any(map(has_no_words, texts))} == PASSED_ON.keys()


def test_the_page_has_every_reason_for_which_a_checkpoint_is_changed() -> None:
    texts = {re.sub(r"\{.*?\}", VARIES, text) for code, text in reasons._CAUSES.items() if code in CAUSES}
    assert {code for cells in rows(REASONS) for code in codes(cells[0])} == texts


@pytest.mark.parametrize("cells", rows("## How long a call may wait"), ids=lambda cells: cells[0])
def test_each_constant_of_the_page_is_the_sources(cells: list[str]) -> None:
    (constant,), (value,) = codes(cells[0]), codes(cells[1])
    module, _, name = constant.rpartition(".")
    assert vars(import_module(f"cachepoint.{module}"))[name] == literal_eval(value)


def test_no_maximum_of_the_page_is_left_unread() -> None:
    assert len(rows("## How long a call may wait")) > 10
