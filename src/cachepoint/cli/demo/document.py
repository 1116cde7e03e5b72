"""The document the demo asks about, and the questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cachepoint.errors import ConfigurationError

ARTICLE_TOKENS = 7_800
"""The size of the document in the article this project started from."""

_CHAPTERS = ("formatstrings", "string-methods", "strings")

_QUESTIONS = (
    "How do I write a literal curly brace in a format string?",
    "What is the difference between the conversion flags '!s', '!r' and '!a'?",
    "Which alignment option puts the padding between the sign and the digits?",
    "How do I print an integer in hexadecimal with a 0x prefix?",
    "What does a comma in the format specification do, and what does an underscore do?",
    "How is a format specification for a datetime object interpreted?",
    "What is the default precision of the 'g' presentation type?",
    "Can a replacement field be nested inside a format specification?",
    "How do I show a ratio as a percentage with two digits after the point?",
    "What happens when a negative value rounds to zero and the 'z' option is given?",
    "How are positional arguments numbered when the numbers are left out?",
    "What may an attribute or index look like inside a replacement field?",
    "Which presentation types are available for a string?",
    "How do I centre a text in a field of thirty characters, filled with asterisks?",
    "Is an arbitrary dictionary key possible inside a format string?",
    "What does the 'n' presentation type change in comparison with 'd'?",
    "How does str.capitalize() treat the letters after the first one?",
    "What is the difference between casefold() and lower()?",
    "How does the presentation type 'c' treat an integer?",
    "How do I pad a number with zeros to a fixed width?",
    "What does an empty format specification produce?",
    "Which sign options exist, and which one is the default?",
    "What is the alternate form of an octal number?",
    "Does the 'f' presentation type always print a decimal point?",
    "How are infinity and NaN printed with the 'F' type?",
    "When does the 'g' type switch to scientific notation?",
    "What does precision mean for a non-numeric field?",
    "Is precision allowed for integer presentation types?",
    "How do I access an attribute of an argument in a format string?",
    "How do I access an item of a sequence in a format string?",
    "What does the fill character default to?",
    "Which characters cannot be used as fill characters?",
    "What is the grammar of a replacement field?",
    "How do I print the same argument twice with one format string?",
    "How would I unpack a tuple into the arguments of format()?",
    "How do I format a complex number?",
    "What does the 'e' presentation type print, and with which default precision?",
    "What is the width of a field if none is given?",
    "How is the 'b' presentation type used together with '#'?",
    "How can thousands be separated by commas?",
    "What does str.count() count when the substring is empty?",
    "How does str.encode() report characters that it cannot encode?",
    "What does str.endswith() accept besides a single string?",
    "How wide are the columns that str.expandtabs() assumes by default?",
    "What does str.find() return when the substring is absent?",
    "When should str.format_map() be used?",
    "How does str.index() differ from str.find()?",
    "Which characters make str.isalnum() true?",
    "When does str.isidentifier() matter, and what should be called first?",
    "What does str.center() do when the width is too small?",
)

_QUESTIONS_ABOUT_ANYTHING = (
    "What is this document about? Answer in three sentences.",
    "Which terms does it define, and how?",
    "What does it say must never be done?",
    "Which numbers or limits does it give?",
    "What does it leave open?",
    "Give one example that it contains and explain it.",
    "For whom is it written?",
    "What changes, according to it, and from when?",
    "Which exceptions to its rules does it name?",
    "What would you have to read next to use it?",
)


@dataclass(frozen=True, slots=True)
class Document:
    """A text and questions about it."""

    title: str
    text: str = field(repr=False)
    questions: tuple[str, ...]

    def asked(self, requests: int) -> tuple[str, ...]:
        """So many questions, the same ones over again when there are fewer."""
        return tuple(self.questions[number % len(self.questions)] for number in range(requests))


def language_reference() -> Document:
    """Chapters of the Python language reference that every Python carries, cut to the article's size."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[chapter] for chapter in _CHAPTERS if chapter in topics)
    return Document("the Python language reference on string formatting", _beginning(text, ARTICLE_TOKENS), _QUESTIONS)


def from_file(path: Path) -> Document:
    """A text file of the user's, whole; raises ConfigurationError when it cannot be read."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"--document {path}: {problem}; name a text file in UTF-8") from None
    if not text.strip():
        raise ConfigurationError(f"--document {path} is empty; name a file with text in it")
    return Document(path.name, text, _QUESTIONS_ABOUT_ANYTHING)


def tokens_of(text: str) -> int:
    """The size of a text by the emulator's counter, as the older Claude models count."""
    from cachepoint.emulator._reading.tokenizer import count_tokens

    return count_tokens(text, "claude")


def excerpts(document: Document, question: str, characters: int = 1_200) -> str:
    """The paragraphs that share most words with a question: what the emulated model answers with."""
    words = _words(question)
    paragraphs = [paragraph for paragraph in document.text.split("\n\n") if paragraph.strip()]
    ranked = sorted(paragraphs, key=lambda paragraph: len(words & _words(paragraph)), reverse=True)
    return "\n\n".join(_within(ranked, characters)) or document.text[:characters]


def _words(text: str) -> set[str]:
    return {word.strip("\"'.,?()").lower() for word in text.split() if len(word) > 3}


def _within(paragraphs: Sequence[str], characters: int) -> list[str]:
    kept: list[str] = []
    for paragraph in paragraphs:
        characters -= len(paragraph)
        if characters < 0:
            break
        kept.append(paragraph)
    return kept


def _beginning(text: str, tokens: int) -> str:
    """The paragraphs from the start that fit into so many tokens."""
    kept: list[str] = []
    for paragraph in text.split("\n\n"):
        tokens -= tokens_of(paragraph + "\n\n")
        if tokens < 0:
            break
        kept.append(paragraph)
    return "\n\n".join(kept)
