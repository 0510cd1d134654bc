"""How a behaviour becomes bytes on one connection, or a connection's end."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from aiohttp import web

from zejzl.testing.behaviours import (
    Answer,
    Behaviour,
    Call,
    Capacity,
    Page,
    Play,
    Refusal,
    Seconds,
    pieces,
)
from zejzl.testing.wires import Json, Wire, ascii_only

Part: TypeAlias = tuple[bytes, bool]  # what to send, and whether it is a word

SETTLE = 0.01  # seconds for bytes to reach the client before their connection goes
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds, so that closing sends RST


async def pause(length: Seconds) -> None:
    """Return after `length` seconds, drawn if it is a function; None: never."""
    seconds = length() if callable(length) else length
    if seconds is None:
        await asyncio.get_running_loop().create_future()
    elif seconds > 0:
        await asyncio.sleep(seconds)


def said(answer: Answer, call: Call, *, continues: bool) -> Answer:
    """Return the answer as this call's limit and this call's prefill leave it."""
    words, finish = answer.words, answer.finish
    if continues and call.prefill:
        text = "".join(words)
        words = pieces(text.removeprefix(call.prefill))
    if call.max_tokens is not None and call.max_tokens < len(words):
        words = words[: call.max_tokens]
        finish = finish and "length"
    return replace(answer, words=words, finish=finish)


class Player:
    """Plays one call's behaviour."""

    def __init__(self, call: Call, request: web.BaseRequest, wire: Wire, models: Json) -> None:
        self._call = call
        self._request = request
        self._wire = wire
        self._models = models

    async def play(self, play: Play) -> web.StreamResponse:
        """Return the response, sent as far as it is to be sent before it is returned."""
        call = self._call
        while not isinstance(play, Behaviour):
            play = play(call)
        call.outcome = play.name
        match play:
            case Refusal():
                status, headers, body = self._wire.error(play, call)
                return self._json(body, status, {**headers, **play.headers})
            case Page():
                call.status = play.status
                return web.Response(text=play.text, status=play.status, content_type="text/html")
            case Capacity() if call.probe:
                return self._json(self._models)
            case Capacity():
                if play.is_full:
                    return await self.play(play.overload)
                async with play.slot():
                    await pause(play.seconds)
                    return await self.play(play.then)
            case Answer():
                await pause(play.delay)
                broken = play.broken
                if broken is not None and broken.after is broken.at is None:
                    return self._drop(web.Response(), reset=True)
                return self._json(self._models) if call.probe else await self._answer(play)

    def _json(
        self, body: Json, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        self._call.status = status
        return web.Response(
            body=json.dumps(body).encode(),
            status=status,
            content_type="application/json",
            headers={**self._wire.headers(self._call), **(headers or {})},
        )

    async def _answer(self, script: Answer) -> web.StreamResponse:
        call = self._call
        answer = said(script, call, continues=self._wire.continues)
        broken = answer.broken
        if broken is not None and broken.error is not None and not call.stream:
            return self._json(self._wire.error(broken.error, call)[2])
        parts, stop, how = self._parts(answer)
        pace = answer.pace if call.stream else 0.0
        if pace != answer.pace:
            for _ in answer.words:
                await pause(answer.pace)
        call.status = 200
        body = b"".join(data for data, _ in parts)
        if how is None and pace == answer.first_token == 0:
            call.words = sum(is_word for _, is_word in parts)
            whole = web.Response(body=body, headers=self._headers())  # leaves in one write
            if call.stream:
                whole.enable_chunked_encoding()
            return whole
        out = web.StreamResponse(headers=self._headers())
        if not call.stream and how != "end" and (how != "cut" or stop < len(parts)):
            out.content_length = len(body)
        else:
            out.enable_chunked_encoding()
        await out.prepare(self._request)
        await pause(answer.first_token)
        if broken is not None and broken.at is not None:
            limit = broken.at(body) if callable(broken.at) else broken.at
            await self._write_bytes(out, parts, limit, ends=how == "end")
        else:
            await self._write(out, parts[:stop], pace)
        if how == "cut" or how == "reset":
            await asyncio.sleep(SETTLE)
            return self._drop(out, reset=how == "reset")
        if how == "stall" and broken is not None:
            await pause(broken.seconds)
            await self._write(out, parts[stop:], pace)
        await out.write_eof()
        return out

    def _parts(self, answer: Answer) -> tuple[list[Part], int, str | None]:
        """Return what to send, after how many parts it is interrupted, and how (None: not)."""
        call, broken = self._call, answer.broken
        render = self._wire.stream if call.stream else self._wire.plain
        frames = render(answer, answer.words, call)
        words = list(frames.words)
        end = frames.finish + (frames.sentinel if answer.sentinel else b"")
        if broken is not None and broken.how == "malformed":
            words[broken.after : (broken.after or 0) + 1] = [frames.garbled]
        if broken is not None and broken.error is not None:
            del words[broken.after :]
            end = self._wire.error_event(broken.error, call)
        parts = [(frames.head, False), *((word, True) for word in words), (end, False)]
        if answer.escaped or answer.line_end != "\n" or answer.charset != "utf-8":
            parts = [(self._dressed(data, answer), is_word) for data, is_word in parts]
        if broken is not None and broken.at is not None:
            return parts, 0, broken.how
        if broken is not None and broken.how in ("cut", "reset", "stall"):
            return parts, min(broken.after or 0, len(words)) + 1, broken.how
        if not answer.sentinel and not frames.sentinel and answer.finish is not None:
            return parts, len(parts), "cut"  # the only end mark to withhold is HTTP's own
        return parts, len(parts), None

    def _dressed(self, data: bytes, answer: Answer) -> bytes:
        """Return a part of the body in the answer's own way of writing."""
        if answer.escaped:
            data = ascii_only(data)
        if self._call.stream:  # a line end that is part of the answer is escaped
            data = data.replace(b"\n", answer.line_end.encode())
        return data.decode().encode(answer.charset, "replace")

    def _headers(self) -> dict[str, str]:
        kind = "text/event-stream" if self._call.stream else "application/json"
        return {**self._wire.headers(self._call), "content-type": f"{kind}; charset=utf-8"}

    async def _write(self, out: web.StreamResponse, parts: Sequence[Part], pace: Seconds) -> None:
        if pace == 0:
            await out.write(b"".join(data for data, _ in parts))
            self._call.words += sum(is_word for _, is_word in parts)
            return
        for data, is_word in parts:
            if data:
                await out.write(data)
            if is_word:
                self._call.words += 1
                await pause(pace)

    async def _write_bytes(
        self, out: web.StreamResponse, parts: Sequence[Part], limit: int, *, ends: bool
    ) -> None:
        """Send the first `limit` bytes; of a chunk that is not to end, its whole length is told."""
        for data, is_word in parts:
            if len(data) > limit:
                transport = self._request.transport
                if not out.chunked or ends or transport is None:
                    await out.write(data[:limit])
                else:
                    transport.write(f"{len(data):x}\r\n".encode() + data[:limit])
                return
            limit -= len(data)
            if data:
                await out.write(data)
            self._call.words += is_word

    def _drop(self, out: web.StreamResponse, *, reset: bool) -> web.StreamResponse:
        """Close the connection; aiohttp notices and forgets the response."""
        transport = self._request.transport
        if transport is not None and reset:
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET
            )
            transport.abort()
        elif transport is not None:
            transport.close()
        return out
