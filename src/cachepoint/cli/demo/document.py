"""The document the demo asks about, and the questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from cachepoint.errors import ConfigurationError

_QUESTIONS = (
    "What is a prefix, and when do two prompts share one?",
    "Where may a checkpoint stand in a Converse request?",
    "How many checkpoints may one request carry?",
    "What does a read cost in comparison with plain input?",
    "What does a five-minute write cost on a Claude model?",
    "From which request on does a one-hour write pay?",
    "How far does the service look back for an entry?",
    "What happens to a prefix below the model's minimum?",
    "Do the tokens of tools count towards the minimum?",
    "How many hidden tokens does the first tool add?",
    "How long does an entry live, and what makes it live longer?",
    "Does the lifetime begin with the request or with its answer?",
    "In which order must checkpoints with different lifetimes stand?",
    "Which models accept a lifetime of one hour?",
    "What do the members of the usage report count?",
    "How large is the prompt of a call that read from the cache?",
    "When is cacheDetails missing from the usage report?",
    "Why must the numbers of a stream not be added up?",
    "Why does a date on the first line of the system prompt do harm?",
    "What does an unstable order of tools break?",
    "What is lost when the system prompt changes?",
    "Which settings of a request break a prefix?",
    "Does temperature have an effect on the cache?",
    "What does an image that is added later break?",
    "Why is a checkpoint refused as the first block of a message?",
    "May a checkpoint follow a reasoning block?",
    "What goes wrong directly after a CSV document?",
    "Where does Nova accept checkpoints in messages?",
    "What should a program do when a checkpoint is refused?",
    "Where does the checkpoint belong for one document and many questions?",
    "Where does the checkpoint belong in a growing conversation?",
    "Why is a fixed instruction after the history a bad place?",
    "How does a recorded agent read and write, step by step?",
    "What do summaries at every step do to the cache of an agent?",
    "How can tenants share a system prompt, and what about timing?",
    "Can batch inference use prompt caching?",
    "How likely must a return be for a five-minute write to win?",
    "What should retrieved documents look like so that they can be read again?",
    "What does a forced choice of tool have to do with the cache?",
    "Why do fifty requests at once write the same prefix fifty times?",
    "How is a prefix warmed before users arrive?",
    "What do cross-Region inference profiles change?",
    "Can one rely on caching without checkpoints?",
    "How many characters does a token have in ordinary English?",
    "Do tokens read from the cache count towards the quota?",
    "What does an application inference profile hide?",
    "Which usage types on the bill are reads, and which are writes?",
    "How does one find out why a call missed?",
    "At which level does Bedrock isolate its caches?",
    "How does one introduce caching step by step?",
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


def shipped() -> Document:
    """An article of this project on how the cache works, as long as the document of the article it started from."""
    text = files(__package__).joinpath("prompt_caching.md").read_text("utf-8")
    return Document("how prompt caching on Amazon Bedrock works", text, _QUESTIONS)


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
