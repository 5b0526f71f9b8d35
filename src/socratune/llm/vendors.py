"""Lists the vendors that can be named before a model, `groq/NAME`: address, key and price list of each.

All but Anthropic are asked by OpenAI's chat completions at the address that the vendor itself documents for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

WireProtocol = Literal["openai", "anthropic"]

BASES: dict[WireProtocol, str] = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


@dataclass(frozen=True, slots=True)
class Vendor:
    """Holds where models of that name are asked.

    Attributes:
        base: the address, as an API base.
        key_variable: the environment variable with its key, as the vendor's documentation has it; None: it takes none.
        documented: the page that gives address and variable.
        prices: its name in the `genai-prices` package. None: no list has its prices.
        protocol: what it speaks.
        terms: the page with its clause on training on outputs, as of `TERMS_READ`; None: not read.
    """

    base: str
    key_variable: str | None
    documented: str
    prices: str | None = None
    protocol: WireProtocol = "openai"
    terms: str | None = None

    @property
    def is_here(self) -> bool:
        """True for a server of this machine, which costs nothing."""
        return self.key_variable is None


TERMS_READ = "2026-11"
VENDORS = {
    "openai": Vendor(
        BASES["openai"],
        "OPENAI_API_KEY",
        "https://platform.openai.com/docs/api-reference",
        "openai",
        terms="https://openai.com/policies/services-agreement/",
    ),
    "anthropic": Vendor(
        BASES["anthropic"],
        "ANTHROPIC_API_KEY",
        "https://docs.anthropic.com/en/api/messages",
        "anthropic",
        protocol="anthropic",
        terms="https://support.claude.com/en/articles/12326764-can-i-use-my-outputs-to-train-an-ai-model",
    ),
    "gemini": Vendor(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        "https://ai.google.dev/gemini-api/docs/openai",
        "google",
        terms="https://ai.google.dev/gemini-api/terms",
    ),
    "hf": Vendor(
        "https://router.huggingface.co/v1", "HF_TOKEN", "https://huggingface.co/docs/inference-providers/index"
    ),
    "groq": Vendor("https://api.groq.com/openai/v1", "GROQ_API_KEY", "https://console.groq.com/docs/openai", "groq"),
    "mistral": Vendor("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "https://docs.mistral.ai/api/", "mistral"),
    "deepseek": Vendor("https://api.deepseek.com", "DEEPSEEK_API_KEY", "https://api-docs.deepseek.com/", "deepseek"),
    "openrouter": Vendor(
        "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "https://openrouter.ai/docs/quickstart", "openrouter"
    ),
    "together": Vendor(
        "https://api.together.ai/v1",
        "TOGETHER_API_KEY",
        "https://docs.together.ai/docs/inference/openai-compatibility",
        "together",
    ),
    "xai": Vendor("https://api.x.ai/v1", "XAI_API_KEY", "https://docs.x.ai/api/integrations", "x-ai"),
    "ollama": Vendor("http://127.0.0.1:11434/v1", None, "https://docs.ollama.com/api/openai-compatibility"),
}
"""Vendors by the name before the slash."""

NO_REPOSITORIES = ("ollama", "gemini", "groq", "hf", "openrouter")
"""Names under which nobody on the Hub publishes models for training."""

OWN_ADDRESS = {
    "azure": ("https://RESOURCE.openai.azure.com/openai/v1", "AZURE_OPENAI_API_KEY"),
    "bedrock": ("https://bedrock-runtime.REGION.amazonaws.com/openai/v1", "AWS_BEARER_TOKEN_BEDROCK"),
}
"""(address, variable of the key) of vendors that give each customer an own address."""

_BARE = {
    "openai": re.compile(r"(gpt-\d|chatgpt-|o\d(-|$))"),
    "anthropic": re.compile(r"claude-"),
    "gemini": re.compile(r"gemini-\d"),
    "xai": re.compile(r"grok-\d"),
}
"""Beginnings of names that only one vendor uses (`gpt-oss-…` is a model for everybody to run)."""


def vendor_of(ref: str) -> tuple[str, str] | None:
    """Returns (Vendor, model) of a reference, in `VENDORS`, or None if it names no vendor."""
    provider, slash, name = ref.partition("/")
    if slash:
        return (provider, name) if provider in VENDORS and name else None
    return next(((vendor, ref) for vendor, begins in _BARE.items() if begins.match(ref)), None)
