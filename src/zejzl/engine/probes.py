"""Probes: whether a provider or the store answers, tried with the least there is to ask."""

from contextlib import suppress

from zejzl.errors import EmptyAnswer, ProviderError
from zejzl.messages import Request
from zejzl.ports import Provider, Store

PROBE_TOKENS = 16


async def provider_answers(provider: Provider, component: str) -> bool:
    """Ask a provider the shortest question there is; its failures are raised.

    Args:
        component: What it is called in this bus, "ai_provider:NAME".
    """
    try:
        with suppress(EmptyAnswer):  # a model that thinks first may spend so few tokens on that
            await provider.generate(Request(content="ping", max_tokens=PROBE_TOKENS))
    except ProviderError as failure:
        with suppress(Exception):  # a user's own class may take no name
            failure.provider = component.partition(":")[2]  # not the adapter's own
        raise
    return True


async def store_answers(store: Store) -> bool:
    """Let the store write something that changes nothing; its failures are raised."""
    await store.keep_setting("probe", None)
    return True
