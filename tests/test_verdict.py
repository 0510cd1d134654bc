"""llmock's verdict on the bus (`bench/verdict.py`): an outside judge, on a clock of its own."""

import asyncio

import openai
import pytest
import verdict
from llmock.scenarios import StreamFault
from llmock.testing import LLMockServer
from llmock.verdict import judge

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its server's


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_fault_mode_of_llmock_ends_in_a_fail_on_any_wire() -> None:
    found = verdict.verdict()

    failed = [(each.case.mode.name, each.case.title, each.wrong) for each in found if each.failed]
    unexplained = [
        (one.case.mode.name, each.code)
        for one in found
        for each in one.findings
        if verdict.reason(one.case, each) == "UNEXPLAINED"
    ]
    assert failed == []
    assert unexplained == []
    assert {each.case.wire for each in found} == {"openai", "anthropic", "gemini"}
    assert all(each.attempts for each in found)


def test_who_takes_a_cut_stream_for_whole_is_told_so() -> None:
    """The judge itself: a client that fails does fail."""

    async def ask(server: LLMockServer) -> str:
        async with openai.AsyncOpenAI(base_url=server.base_url("openai"), api_key="key") as client:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    with LLMockServer() as server:
        server.state.scenarios.add(StreamFault("truncate", after_chunks=3))
        text = asyncio.run(ask(server))
        found = judge(server.state.journal.records(wait=1.0))

    assert text
    assert [each.code for each in found.errors] == ["truncated_stream_accepted"]
