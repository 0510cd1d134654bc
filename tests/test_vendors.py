"""The table of vendors, and what settings make of it."""

from typing import Any

import pytest

from tests.test_transport import blackhole
from zejzl.errors import ConnectFailed, SettingsError
from zejzl.messages import Request
from zejzl.ports import StreamingProvider
from zejzl.providers import Anthropic, Gemini, OpenAICompatible
from zejzl.providers.adapter import Adapter
from zejzl.providers.vendors import VENDORS, build, configured
from zejzl.settings import VENDOR_KEYS, Secret, Settings, VendorSettings
from zejzl.testing import FaultServer
from zejzl.testing.behaviours import WireName

WIRES: dict[str, type[Adapter]] = {
    "openai": OpenAICompatible,
    "anthropic": Anthropic,
    "gemini": Gemini,
}
every_vendor = pytest.mark.parametrize("name", VENDORS)


def vendors(**of: VendorSettings) -> Settings:
    return Settings(vendors=of)


def test_the_table_has_the_vendors_of_the_settings_in_their_order() -> None:
    assert list(VENDORS) == list(VENDOR_KEYS)


@every_vendor
async def test_a_vendor_is_built_with_its_name_model_and_wire(name: str) -> None:
    provider = build(name, Settings())

    assert isinstance(provider, StreamingProvider)
    assert type(provider) is WIRES[VENDORS[name].wire]
    assert (provider.name, provider.default_model) == (name, VENDORS[name].model)
    await provider.cleanup()


@every_vendor
async def test_a_vendor_goes_to_its_own_address_over_tls_unless_it_is_local(name: str) -> None:
    url = build(name, Settings()).url("m", stream=False)

    assert str(url).startswith(VENDORS[name].base_url + "/")
    assert url.scheme == ("http" if name == "local" else "https")
    assert (url.host == "127.0.0.1") is (name == "local")


@every_vendor
async def test_settings_win_over_the_table(name: str) -> None:
    wire: WireName = VENDORS[name].wire  # type: ignore[assignment]
    async with FaultServer() as server:
        own = VendorSettings(Secret("s3cret-key"), server.base_url(name, wire), "my-model")
        provider = build(name, vendors(**{name: own}))

        reply = await provider.generate(Request(content="hello", max_tokens=3))
        await provider.cleanup()

        call = server.log[0]
        assert (reply.provider, reply.model, call.model) == (name, "my-model", "my-model")
        assert any("s3cret-key" in value for value in call.headers.values())
        assert call.max_tokens == 3


@pytest.mark.parametrize(
    ("name", "field"),
    [("chatgpt", "max_completion_tokens"), ("deepseek", "max_tokens")],
    ids=["OpenAI's own", "everybody else's"],
)
async def test_the_limit_has_the_name_that_the_vendor_takes(name: str, field: str) -> None:
    request = Request(content="hello", max_tokens=3)

    body: dict[str, Any] = build(name, Settings()).body(request, "m", stream=False)

    assert {key: body[key] for key in body if "token" in key} == {field: 3}


async def test_a_bad_address_is_refused_when_it_is_built() -> None:
    with pytest.raises(SettingsError):
        build("grok", vendors(grok=VendorSettings(base_url="http://")))


def test_without_keys_nobody_is_usable() -> None:
    assert configured(Settings()) == []


def test_a_key_makes_a_vendor_usable_in_the_order_of_registration() -> None:
    key = VendorSettings(Secret("k"))

    assert configured(vendors(zai=key, claude=key, chatgpt=key)) == ["chatgpt", "claude", "zai"]


@pytest.mark.parametrize("name", [name for name in VENDORS if name != "local"])
def test_an_address_or_a_model_alone_makes_no_vendor_usable(name: str) -> None:
    assert configured(vendors(**{name: VendorSettings(base_url="http://x", model="m")})) == []


@pytest.mark.parametrize(
    ("of", "usable"),
    [
        (VendorSettings(base_url="http://x"), ["local"]),
        (VendorSettings(Secret("k")), []),
    ],
    ids=["an address", "a key alone"],
)
def test_the_local_one_needs_an_address_and_no_key(of: VendorSettings, usable: list[str]) -> None:
    assert configured(vendors(local=of)) == usable


@pytest.mark.parametrize("name", ["chatgpt", "claude", "gemini"], ids=WIRES)
async def test_the_time_to_connect_is_that_of_the_settings(name: str) -> None:
    with blackhole() as address:
        settings = Settings(
            connect_timeout=0.05, vendors={name: VendorSettings(Secret("k"), address)}
        )
        provider = build(name, settings)

        with pytest.raises(ConnectFailed, match="no connection in time"):
            await provider.generate(Request(content="hello"))

        await provider.cleanup()
