"""What only the registry itself shows; the rest is in `test_ai_framework.py`."""

from zejzl.engine.registry import Registry
from zejzl.magic import FairyMagic
from zejzl.testing import FakeClock, ScriptedProvider


async def test_a_chain_holds_nobody_twice() -> None:
    registry = Registry(FairyMagic(clock=FakeClock()), None, None)
    for name in ("a", "b"):
        await registry.add(name, ScriptedProvider(name=name))

    chain = registry.chain("b", True, None)

    assert [target.name for target in chain] == ["b", "a"]


async def test_a_removed_provider_takes_its_breakers_along() -> None:
    magic = FairyMagic(clock=FakeClock())
    registry = Registry(magic, None, None)
    await registry.add("a", ScriptedProvider())
    registry.chain("a/big", None, None)
    registry.chain("a", None, None)

    await registry.remove("A")

    assert not [name for name in magic.circuit_breakers if name.startswith("ai_provider:")]


async def test_clearing_lets_everybody_go() -> None:
    registry = Registry(FairyMagic(clock=FakeClock()), None, None)
    providers = [ScriptedProvider(), ScriptedProvider()]
    for name, provider in zip("ab", providers, strict=True):
        await registry.add(name, provider)

    await registry.clear()

    assert len(registry) == 0
    assert all(provider.cleaned_up for provider in providers)
