"""The names users import, and that importing them is cheap."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import cachepoint

PUBLIC = {
    "CacheLedger",
    "CachePolicy",
    "CachepointError",
    "CallRecord",
    "MemoryStore",
    "Usage",
    "expect",
    "fan_out",
    "keep_alive",
    "tags",
    "wrap",
    "wrap_async",
}
FRAMEWORKS = {
    "cachepoint.langchain": {
        "CacheAwareChatBedrockConverse",
        "PromptCacheCallbackHandler",
        "PromptCacheMiddleware",
        "StableOrderRetriever",
        "cached_context_prompt",
        "context_blocks",
        "get_prompt_cache_callback",
        "stable_order",
    },
    "cachepoint.llama_index": {
        "CacheAwareBedrockConverse",
        "CachedContextChatEngine",
        "PromptCacheCallbackHandler",
        "PromptCacheEventHandler",
        "StableOrderPostprocessor",
        "cached_qa_template",
    },
    "cachepoint.emulator": {"BedrockEmulator"},
}
HEAVY = ("boto3", "botocore", "genai_prices", "pydantic", "starlette", "uvicorn", "langchain_core", "llama_index")
IMPORT_LIMIT = 0.050


def fresh(code: str) -> str:
    """What a new interpreter prints that runs this code."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_package_offers_exactly_its_public_names() -> None:
    assert set(cachepoint.__all__) == PUBLIC
    assert set(dir(cachepoint)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_found_where_it_is_promised(name: str) -> None:
    assert getattr(cachepoint, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'warp'"):
        cachepoint.warp  # noqa: B018  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", sorted(FRAMEWORKS))
def test_a_framework_package_offers_its_public_names(module: str) -> None:
    offered = importlib.import_module(module)
    assert set(offered.__all__) >= FRAMEWORKS[module]
    for name in offered.__all__:
        assert getattr(offered, name) is not None


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = fresh(f"import sys, cachepoint; print(*(m for m in {HEAVY!r} if m in sys.modules))")
    assert loaded == ""


def test_importing_the_package_is_quick() -> None:
    # The processor's time, which a busy machine does not stretch.
    timed = "import time; t = time.process_time(); import cachepoint; print(time.process_time() - t)"
    assert min(float(fresh(timed)) for _ in range(5)) < IMPORT_LIMIT


def test_the_pytest_plugin_loads_the_emulator_only_when_a_test_uses_it(project_root: Path) -> None:
    loaded = fresh(
        f"import sys, cachepoint.emulator._pytest_plugin; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    )
    assert loaded == ""
    assert (project_root / "src" / "cachepoint" / "py.typed").is_file()
