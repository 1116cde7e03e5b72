"""What comments and pages cite is there: entries of docs/rules.md, files of this repository, headings of its pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "cachepoint"
RULES = ROOT / "docs" / "rules.md"
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
SOURCES = sorted(path for suffix in ("py", "toml", "md") for path in SOURCE.rglob(f"*.{suffix}"))
PROGRAMS = sorted(path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))

# R3.9, C10, D4, T3, P2, V7, O1: an entry of docs/rules.md. Not preceded by what makes it a part of a longer name.
ID = re.compile(r"(?<![\w.\-/'\"#])(?:R\d\.\d{1,2}|[CDOPTV]\d{1,2})(?![\w'\"]|\.\d|-\d)")
RANGE = re.compile(rf"({ID.pattern}) to ({ID.pattern})")
ENTRY = re.compile(r"^\| ((?:(?:R\d\.|[CDOPTV])\d+)(?:, (?:R\d\.|[CDOPTV])\d+)*) \|", re.MULTILINE)
RULES_NUMBERED = re.compile(r"\b(?:rules|recorded|ordering|facts|news)(?:\.md)?,? (?:\(?R?\d|[CDT]\d|sections? \d)")
# A path from the repository's root, or from the package: docs/rules.md, core/exchange.py, tests/emulator/.
PATH = re.compile(
    r"(?<![\w./\-<*])(?:docs|src|tests|benchmarks|examples|constraints|shared|core|catalogue|store|sinks|bedrock|emulator"
    r"|langchain|llama_index|audit|cli|data)/[\w./\-]*(?:\w\.(?:py|md|toml|json|svg|txt|ipynb)\b|/(?=[`\s,.)]))"
)
# A word in capitals with an underscore: a constant, an environment variable, or a figure that was to be filled in.
CAPITALS = re.compile(r"(?<!\w)[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?!\w)")
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")


def ids(text: str) -> set[str]:
    """The ids a text cites, those between the ends of a range such as "V1 to V7" included."""
    cited = set(ID.findall(text))
    for first, last in RANGE.findall(text):
        head = first.rstrip("0123456789")
        cited |= {f"{head}{number}" for number in range(int(first[len(head) :]), int(last[len(head) :]) + 1)}
    return cited


def entries() -> set[str]:
    return {each for row in ENTRY.findall(RULES.read_text("utf-8")) for each in row.split(", ")}


def lines(*paths: Path) -> Iterator[tuple[str, str]]:
    """Each line with where it stands."""
    for path in paths:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def test_every_id_that_is_cited_is_an_entry_of_the_rules() -> None:
    known = entries()
    assert not {where: ids(line) - known for where, line in lines(*SOURCES, *PROGRAMS, RULES) if ids(line) - known}


def test_a_module_that_cites_an_id_says_which_page_it_is_of() -> None:
    """In the module itself, or in the docstring of a package around it."""
    assert not [str(path.relative_to(ROOT)) for path in SOURCES if _cites(path) and not _names_the_page(path)]


def _cites(path: Path) -> bool:
    return bool(ids(path.read_text("utf-8")))


def _names_the_page(path: Path) -> bool:
    packages = [folder / "__init__.py" for folder in path.parents if SOURCE in (folder, *folder.parents)]
    return any("docs/rules.md" in each.read_text("utf-8") for each in (path, *packages) if each.is_file())


def test_nothing_cites_notes_that_are_not_in_the_repository() -> None:
    assert not [
        where for where, line in lines(*SOURCES, *PROGRAMS) if RULES_NUMBERED.search(line.replace("docs/rules.md", ""))
    ]


@pytest.mark.parametrize("under", [SOURCES, PAGES], ids=["source", "pages"])
def test_every_path_that_is_named_exists(under: tuple[Path, ...]) -> None:
    named = [(where, path) for where, line in lines(*under) for path in PATH.findall(line)]
    assert named
    assert not [(where, path) for where, path in named if not _exists(path)]


def _exists(path: str) -> bool:
    return any((root / path).exists() for root in (ROOT, SOURCE, SOURCE / "catalogue"))


def test_every_word_in_capitals_is_a_name_that_programs_know() -> None:
    """Else it is a placeholder that nobody filled in. An example below is none of a program's names."""
    programs = [*SOURCES, *PROGRAMS, *(ROOT / ".ci").glob("*.py"), ROOT / "Makefile"]
    known = {
        word
        for path in programs
        if path.is_file() and path != Path(__file__).resolve()
        for word in CAPITALS.findall(path.read_text("utf-8"))
    }
    named = [(where, word) for where, line in lines(*PAGES) for word in CAPITALS.findall(line)]
    assert named
    assert not [(where, word) for where, word in named if word not in known and not word.startswith("AWS_")]


def test_every_relative_link_of_a_page_leads_somewhere() -> None:
    links = [(page, *link) for page in PAGES for link in LINK.findall(page.read_text("utf-8"))]
    assert links
    assert not [(page.name, target, heading) for page, target, heading in links if not _leads(page, target, heading)]


def _leads(page: Path, target: str, heading: str) -> bool:
    found = page.parent / target if target else page
    return found.exists() and (not heading or heading in _anchors(found))


def _anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_ranges_and_longer_names_are_read_as_meant() -> None:
    assert ids("V1 to V3, R3.19 to R3.21 and C7") == {"V1", "V2", "V3", "R3.19", "R3.20", "R3.21", "C7"}
    assert ids("a V100 card, MP3, D4-5, R3.9.1, `C3PO`, https://x/C7") == set()
    assert CAPITALS.findall("`CACHEPOINT_RULES`, HOUSE_FANIN, 41 (HOUSE_MOST), x/HALF_LIFE; AWS_ and `TTL`, A_b") == [
        "CACHEPOINT_RULES", "HOUSE_FANIN", "HOUSE_MOST", "HALF_LIFE",
    ]  # fmt: skip
