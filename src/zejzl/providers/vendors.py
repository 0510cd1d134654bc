"""The built-in vendors: who speaks which wire, where, with which model by default.

Addresses and model names as of November 2026; `<NAME>_BASE_URL` and `<NAME>_MODEL` override them.
"""

from dataclasses import dataclass

from zejzl.clock import Clock
from zejzl.providers.adapter import Adapter
from zejzl.providers.anthropic import Anthropic
from zejzl.providers.gemini import Gemini
from zejzl.providers.openai import OpenAICompatible
from zejzl.settings import VENDOR_KEYS, Settings, VendorSettings


@dataclass(frozen=True, slots=True)
class Vendor:
    """One vendor's wire, address and default model.

    Attributes:
        max_tokens_field: OpenAI's own models refuse the name that everybody else still uses.
    """

    wire: str
    base_url: str
    model: str
    max_tokens_field: str = "max_tokens"


VENDORS: dict[str, Vendor] = {
    "chatgpt": Vendor("openai", "https://api.openai.com/v1", "gpt-5-mini", "max_completion_tokens"),
    "claude": Vendor("anthropic", "https://api.anthropic.com", "claude-sonnet-5-5"),
    "gemini": Vendor(
        "gemini", "https://generativelanguage.googleapis.com", "gemini-3.5-flash-lite"
    ),
    "grok": Vendor("openai", "https://api.x.ai/v1", "grok-4.3"),
    "deepseek": Vendor("openai", "https://api.deepseek.com/v1", "deepseek-flash"),
    "qwen": Vendor("openai", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen-plus"),
    "zai": Vendor("openai", "https://api.z.ai/api/paas/v4", "glm-4.6"),
    "local": Vendor("openai", "http://127.0.0.1:8080/v1", "default"),
}


def configured(settings: Settings) -> list[str]:
    """Return the vendors that settings make usable, in order of registration.

    A key makes a vendor usable; `local` needs an address instead.
    """
    usable = []
    for name in VENDOR_KEYS:
        of = settings.vendors.get(name)
        if of is not None and (of.base_url if name == "local" else of.api_key):
            usable.append(name)
    return usable


def build(name: str, settings: Settings, clock: Clock | None = None) -> Adapter:
    """Return a built-in vendor's adapter as the settings say."""
    vendor = VENDORS[name]
    of = settings.vendors.get(name, VendorSettings())
    base_url, model = of.base_url or vendor.base_url, of.model or vendor.model
    timeout = settings.connect_timeout
    if vendor.wire == "anthropic":
        return Anthropic(
            base_url, of.api_key, model, name=name, connect_timeout=timeout, clock=clock
        )
    if vendor.wire == "gemini":
        return Gemini(base_url, of.api_key, model, name=name, connect_timeout=timeout, clock=clock)
    return OpenAICompatible(
        base_url,
        of.api_key,
        model,
        name=name,
        max_tokens_field=vendor.max_tokens_field,
        connect_timeout=timeout,
        clock=clock,
    )
