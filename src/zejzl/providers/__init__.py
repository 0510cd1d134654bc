"""Adapters to language models over HTTP, one for each wire format."""

from zejzl.providers.anthropic import Anthropic
from zejzl.providers.gemini import Gemini
from zejzl.providers.offline import Offline
from zejzl.providers.openai import OpenAICompatible

__all__ = ["Anthropic", "Gemini", "Offline", "OpenAICompatible"]
