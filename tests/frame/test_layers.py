"""The house rules of the source tree, read off its syntax trees."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Container, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "cachepoint"
BENCHMARKS = ROOT / "benchmarks"

# Each floor may import itself and the floors after it; those in one set are strangers to each other.
FLOORS: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"langchain", "llama_index", "audit"},
    {"bedrock", "emulator"},
    {"catalogue", "store", "sinks"},
    {"core"},
    {"_lazy", "_forks", "_later", "_cached"},
    {"errors"},
]
# Inside the core each room may import the rooms before it.
CORE = ("provider", "prompt", "traffic", "planning", "accounts", "retrieval", "healing", "exchange")
# What users import; everything else is private before 1.0, by an underscore or by standing in a private room.
PUBLIC = {
    "cachepoint", "cachepoint.langchain", "cachepoint.llama_index", "cachepoint.emulator", "cachepoint.emulator.faults",
    "cachepoint.emulator.replies", "cachepoint.sinks", "cachepoint.store", "cachepoint.errors",
}  # fmt: skip
PRIVATE_ROOMS = {"core", "catalogue", "bedrock", "audit", "cli", "__main__"}
# What the emulator judges with is its own, but for what recordings and outside sources pin: each module with the names
# it may take. It may read ids and find rules as the client does, for the bill, which judges, does both by itself.
SHARED_WITH_THE_EMULATOR = {
    "cachepoint.catalogue.table": {"PriceZone", "TableRow", "load_rules", "load_table"},
    "cachepoint.core.provider.cache_model": {
        "CacheModel", "CacheRequest", "CacheSwitches", "Point", "Position", "Served",
    },
    "cachepoint.core.provider.rules": {
        "TTL", "TTL_SECONDS", "Api", "ModelRule", "Rules", "Section", "Tokenizer", "parse_model_id",
    },
    "cachepoint.core.provider.usage": {"Usage"},
}  # fmt: skip
# The bill shares rows and counts, and no way to find or price them.
SHARED_WITH_THE_BILL = {
    "cachepoint.catalogue.table": {"PriceZone", "TableRow", "load_table"},
    "cachepoint.core.provider.usage": {"Usage"},
}
HEIGHT = {name: -depth for depth, names in enumerate(FLOORS) for name in names}

LONGEST_FUNCTION = 60
# A fork leaves these as they are in the child, locked where another thread had them. Python 3.11's cached property has
# a lock. Who uses one says here why no child can wait for it.
NOT_SAFE_OF_FORKS = {
    "threading.Lock", "threading.RLock", "threading.Event", "threading.Condition", "threading.Semaphore",
    "threading.BoundedSemaphore", "threading.Barrier", "threading.Thread", "queue.Queue",
    "concurrent.futures.ThreadPoolExecutor", "functools.cached_property",
}  # fmt: skip
SAFE_OF_FORKS_ALL_THE_SAME = {
    "cachepoint._forks": "makes them safe",
    "cachepoint.bedrock.call": "the lock is a call's, which a child leaves alone",
    "cachepoint.bedrock.counting": "the thread asks for one call, which a child leaves alone",
    "cachepoint.bedrock.threads": "the locks are of calls that a thread of the parent's makes",
    "cachepoint.bedrock.keep_alive": "a child gives the block's thread and its event up",
    "cachepoint.bedrock.opaque_models": "a thread that is not alive is not waited for",
    "cachepoint.emulator._server": "a child is not served by its parent's server",
    "cachepoint.llama_index._chat.engine": "the thread fills the stream of one call",
    "cachepoint.sinks._background": "a child starts with a queue and a thread of its own",
}
IMPURE_CALLS = {
    "open",
    "print",
    "input",
    "time.time",
    "time.monotonic",
    "time.perf_counter",
    "time.sleep",
    "datetime.now",
    "datetime.today",
    "date.today",
    "os.getenv",
    "warnings.warn",
    "socket.socket",
}
IMPURE_MODULES = {"os", "socket", "warnings", "logging", "time", "random", "pathlib", "subprocess"}


def name_of(path: Path, root: Path = PACKAGE.parent) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(), path) for path in sorted(PACKAGE.rglob("*.py"))}
PATHS = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def only_for_types(tree: ast.Module) -> set[ast.AST]:
    """The nodes under `if TYPE_CHECKING:`, which never run."""
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            guarded |= {inner for statement in node.body for inner in ast.walk(statement)}
    return guarded


def imports(tree: ast.Module, known: Container[str] | None = None) -> Iterator[tuple[ast.stmt, str]]:
    """Every import with the modules it names; `from a import b` names `a.b` where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; name the module in full"
            module = node.module or ""
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                yield node, submodule if submodule in (known or TREES) else module


def floor_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "cachepoint" and len(parts) > 1 else None


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["cachepoint", "core"] and len(parts) > 2 else None


def is_private(module: str) -> bool:
    parts = module.split(".")[1:]
    return any(part.startswith("_") for part in parts) or bool(parts and parts[0] in PRIVATE_ROOMS)


def test_a_floor_imports_only_the_floors_below_it() -> None:
    upward = []
    for module, tree in TREES.items():
        here = floor_of(module)
        if here is None:
            continue
        for node, imported in imports(tree):
            there = floor_of(imported)
            if there and there != here and HEIGHT[there] >= HEIGHT[here]:
                upward.append(f"{module}:{node.lineno} imports {imported}")
    assert not upward


def test_a_room_of_the_core_imports_only_the_rooms_before_it() -> None:
    upward = []
    for module, tree in TREES.items():
        here = room_of(module)
        for node, imported in imports(tree):
            there = room_of(imported)
            if here and there and CORE.index(there) > CORE.index(here):
                upward.append(f"{module}:{node.lineno} imports {imported}")
    assert not upward


def shared_by(modules: Iterable[str]) -> dict[str, set[str]]:
    """What modules import from the core, the catalogue and the client, by module."""
    shared: dict[str, set[str]] = {}
    for module in modules:
        for node, imported in imports(TREES[module]):
            if floor_of(imported) in ("core", "catalogue", "bedrock"):
                shared.setdefault(imported, set()).update(alias.name for alias in getattr(node, "names", ()))
    return shared


def test_the_emulator_shares_only_what_outside_sources_pin() -> None:
    assert shared_by(module for module in TREES if floor_of(module) == "emulator") == SHARED_WITH_THE_EMULATOR


def test_the_bill_finds_and_prices_rows_by_itself() -> None:
    assert shared_by(["cachepoint.emulator._bill"]) == SHARED_WITH_THE_BILL


def test_what_is_not_public_is_private_by_its_name() -> None:
    assert {module for module in TREES if not is_private(module)} == PUBLIC


def test_documents_and_examples_import_only_what_is_public() -> None:
    named = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "examples").glob("*.py"))
        for module in re.findall(r"(?:from|import) (cachepoint[\w.]*)", path.read_text("utf-8"))
        if module not in PUBLIC
    }
    assert not named


def home_of(name: str) -> str:
    """The module a dotted name is in."""
    while name not in TREES and "." in name:
        name = name.rpartition(".")[0]
    return name


def test_documents_and_docstrings_of_public_classes_name_only_what_is_public() -> None:
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
    texts["README.md"] = (ROOT / "README.md").read_text("utf-8")
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                members = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
                texts[f"{module}.{node.name}"] = "\n".join(ast.get_docstring(each) or "" for each in (node, *members))
    assert not {
        f"{place}: {name}"
        for place, text in texts.items()
        for name in re.findall(r"\bcachepoint(?:\.\w+)+", text)
        if is_private(home_of(name)) or "._" in name
    }


def test_every_package_stands_on_a_floor() -> None:
    assert {floor_of(module) for module in TREES} - {None} <= set(HEIGHT)


def test_no_module_imports_the_package_root() -> None:
    assert not [
        f"{module}:{node.lineno}"
        for module, tree in TREES.items()
        for node, imported in imports(tree)
        if imported == "cachepoint"
    ]


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert_no_circle(TREES)


def test_benchmarks_do_not_import_each_other_in_a_circle() -> None:
    assert_no_circle({name_of(path, BENCHMARKS): ast.parse(path.read_text()) for path in BENCHMARKS.rglob("*.py")})


def assert_no_circle(trees: dict[str, ast.Module]) -> None:
    graph = {}
    for module, tree in trees.items():
        never_run = only_for_types(tree)
        imported = {name for node, name in imports(tree, trees) if node not in never_run}
        graph[module] = (imported & trees.keys()) - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(f"import cycle: {' -> '.join(cycle.args[1])}")


def test_the_core_needs_only_the_standard_library() -> None:
    assert not [
        f"{module}:{node.lineno} imports {imported}"
        for module, tree in TREES.items()
        if floor_of(module) in ("core", "errors")
        for node, imported in imports(tree)
        if imported.split(".")[0] not in sys.stdlib_module_names | {"cachepoint"}
    ]


def test_the_core_reads_no_clock_no_environment_and_no_file() -> None:
    impure = []
    for module, tree in TREES.items():
        if floor_of(module) != "core":
            continue
        impure += [
            f"{module}:{node.lineno} imports {imported}"
            for node, imported in imports(tree)
            if imported.split(".")[0] in IMPURE_MODULES
        ]
        impure += [
            f"{module}:{node.lineno} calls {ast.unparse(node.func)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS
        ]
    assert not impure


def names_in(tree: ast.Module) -> Iterator[str]:
    """Every dotted name, also where it is imported from its module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_what_a_fork_would_leave_locked_is_used_with_a_reason() -> None:
    using = {module for module, tree in TREES.items() if not NOT_SAFE_OF_FORKS.isdisjoint(names_in(tree))}
    assert using == SAFE_OF_FORKS_ALL_THE_SAME.keys()


def test_no_function_is_too_long_to_see_at_once() -> None:
    lengths = {
        f"{module}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {function: lines for function, lines in lengths.items() if lines > LONGEST_FUNCTION}


def test_nothing_is_left_unimplemented() -> None:
    assert not [
        f"{module}:{node.lineno}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.unparse(node.exc)
    ]
