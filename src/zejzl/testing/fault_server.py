"""A server on loopback that speaks three vendors' wire formats, and fails as it is told to.

    POST /{name}/v1/chat/completions                              OpenAI
    POST /{name}/v1/messages                                      Anthropic
    POST /{name}/v1beta/models/{model}:generateContent            Gemini; v1 will do as well
    POST /{name}/v1beta/models/{model}:streamGenerateContent      Gemini; always with ?alt=sse
    GET  /{name}/v1/models  /{name}/v1beta/models                 the models: a probe of health

One server hosts any number of providers, told apart by `name`. Each plays its script, or answers
well while it has none. A request that the vendor would not take (no key, no messages, broken JSON)
gets that vendor's error, whatever the script, and leaves the script where it was.

A probe goes the way of the script's present behaviour where that is an error, a page, silence or a
reset, and gets the list where it is an answer, even a broken one; it moves no script on.
"""

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self
from weakref import WeakKeyDictionary

from aiohttp import web

from zejzl.testing.anthropic_wire import AnthropicWire
from zejzl.testing.behaviours import BEHAVIOURS, Call, Play, Refusal, Script, WireName
from zejzl.testing.faults import in_turn, ok
from zejzl.testing.gemini_wire import GeminiWire
from zejzl.testing.openai_wire import OpenAIWire
from zejzl.testing.player import Player
from zejzl.testing.wires import Wire, invalid

WIRES: Mapping[WireName, Wire] = {
    wire.name: wire for wire in (OpenAIWire(), AnthropicWire(), GeminiWire())
}
MODELS = ("big", "small")  # what a probe is told, besides the models that have scripts
BY_SERVER = "by the fault server"  # tells our own cancellations from those of a client that left


class FaultServer:
    """A provider that fails on purpose; see the module for its addresses.

        async with FaultServer() as server:
            server.play("alpha", [faults.status(500), faults.ok()])
            server.play("alpha", faults.rate_limited(retry_after=2), model="big")
            client = openai.AsyncOpenAI(base_url=server.base_url("alpha"), api_key="any")

    The client may live in the same event loop, in another, or in another process. Any key will
    do, but there must be one.

    Attributes:
        log: Every request for an answer, oldest first, from the moment it came.
        probes: Every request for the list of models.
    """

    def __init__(self) -> None:
        self.log: list[Call] = []
        self.probes: list[Call] = []
        self._scripts: dict[tuple[str, str | None], Play] = {}
        self._default: Play = ok()
        self._tasks: set[asyncio.Task[object]] = set()
        self._in_flight: Counter[str] = Counter()
        self._most: Counter[str] = Counter()
        self._connections: WeakKeyDictionary[asyncio.BaseTransport, int] = WeakKeyDictionary()
        self._connected = 0
        self._requests = 0
        self._time = time.monotonic  # until the start, which has a loop to ask
        self._start = 0.0
        self._socket: socket.socket | None = None
        self._site: web.SockSite | None = None
        self._runner: web.ServerRunner | None = None

    # ── Life ──────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        # The loop's, which times every answer: it may run faster than the machine's.
        self._time = asyncio.get_running_loop().time
        self._start = self._time()
        self._socket = _bound(0)
        await self.resume()

    async def stop(self) -> None:
        """Stop at once; calls that hang are broken off."""
        await self.stop_listening()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._runner = None

    async def stop_listening(self) -> None:
        """Refuse connections and drop the open ones, as when a process has died.

        The port stays reserved; `resume` listens on it again.
        """
        if self._site is None:
            return
        port = self.port
        await self._site.stop()
        self._site = None
        self._socket = _bound(port)
        for task in self._tasks:
            task.cancel(BY_SERVER)
        server = self._runner.server if self._runner is not None else None
        for connection in server.connections if server is not None else ():
            connection.force_close()

    async def resume(self) -> None:
        """Listen (again)."""
        if self._site is None and self._runner is not None and self._socket is not None:
            self._site = web.SockSite(self._runner, self._socket, backlog=1024)
            await self._site.start()

    # ── For the test ──────────────────────────────────────────────────────────────────────────────

    @property
    def port(self) -> int:
        """The port; the same one for the server's whole life."""
        if self._socket is None:
            raise RuntimeError("the fault server is not running")
        port: int = self._socket.getsockname()[1]
        return port

    def base_url(self, provider: str, wire: WireName = "openai") -> str:
        """Return the address as this vendor's SDK takes it."""
        root = f"http://127.0.0.1:{self.port}/{provider}"
        return f"{root}/v1" if wire == "openai" else root

    def now(self) -> float:
        """Return the seconds since the start: the time of `Call.at` and of outages."""
        return self._time() - self._start

    def play(self, provider: str, script: Script, *, model: str | None = None) -> None:
        """Let `provider` play `script` from now on, in place of what it played.

        Args:
            provider: The name in the path.
            script: A behaviour for every call; a sequence, whose last one repeats for ever; or a
                rule, a function from the `Call` to a behaviour (or to another rule).
            model: Only for this model, which then has its own script.

        Raises:
            TypeError: If `script` is none of these.
        """
        if isinstance(script, str | bytes):
            raise TypeError(f"a script is made of faults: faults.ok({script!r}), for example")
        steps = script if isinstance(script, Sequence) else (script,)
        if not all(isinstance(step, BEHAVIOURS) or callable(step) for step in steps):
            raise TypeError(f"a script is faults, a list of them or a function, not {script!r}")
        self._scripts[provider, model] = (
            in_turn(*script) if isinstance(script, Sequence) else script
        )

    def calls(self, provider: str, model: str | None = None) -> list[Call]:
        """Return the log of one provider, or of one of its models."""
        return [
            call
            for call in self.log
            if call.provider == provider and (model is None or call.model == model)
        ]

    def in_flight(self, provider: str) -> int:
        """Return how many calls the provider is busy with."""
        return self._in_flight[provider]

    def max_in_flight(self, provider: str) -> int:
        """Return how many it has been busy with at once, at most."""
        return self._most[provider]

    # ── One request ───────────────────────────────────────────────────────────────────────────────

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # a handler runs in a task
        self._tasks.add(task)
        call = self._call(request)
        try:
            raw = await request.content.read()
            return await self._log(call, raw, request)
        finally:
            self._tasks.discard(task)

    def _call(self, request: web.BaseRequest) -> Call:
        """Return what can be told from the request line and the headers."""
        provider, *rest = request.path[1:].split("/")
        self._requests += 1
        headers = {name.lower(): value for name, value in request.headers.items()}
        wire, model, stream = _route(request.method, rest, headers)
        return Call(
            provider=provider,
            wire=wire or "openai",
            model=model,
            stream=stream,
            known=wire is not None,
            probe=request.method == "GET",
            at=self.now(),
            headers=headers,
            connection=self._connection(request),
            request_id=f"{self._requests:024x}",
        )

    def _connection(self, request: web.BaseRequest) -> int:
        transport = request.transport
        if transport is None:
            return 0
        if transport not in self._connections:
            self._connected += 1
            self._connections[transport] = self._connected
        return self._connections[transport]

    async def _log(self, call: Call, raw: bytes, request: web.BaseRequest) -> web.StreamResponse:
        (self.probes if call.probe else self.log).append(call)
        name, begun = call.provider, self._time()
        self._in_flight[name] += 1
        self._most[name] = max(self._most[name], self._in_flight[name])
        try:
            wire = WIRES[call.wire]
            rejection = self._rejection(call, raw, request)
            models = wire.models(self._models(name)) if call.probe else {}
            player = Player(call, request, wire, models)
            return await player.play(rejection or self._cue(call))
        except asyncio.CancelledError as left:
            call.hung_up = left.args != (BY_SERVER,)
            raise
        except ConnectionError:
            call.hung_up = True
            return web.Response()  # to nobody: aiohttp notices and forgets it
        finally:
            self._in_flight[name] -= 1
            call.seconds = self._time() - begun

    def _rejection(self, call: Call, raw: bytes, request: web.BaseRequest) -> Refusal | None:
        """Return the vendor's error for what it would not take; fill in what the body says."""
        call.body_bytes = len(raw)
        if not call.known:
            message = f"Invalid URL ({request.method} {request.path})"
            return Refusal(name="rejected: no such address", kind="not_found", message=message)
        wire = WIRES[call.wire]
        problem = wire.problem(call.headers, request.query)
        if problem is not None or call.probe:
            return problem
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return invalid("We could not parse the JSON body of your request.")
        call.body = body
        call.model = call.model or str(body.get("model") or "")
        call.stream = call.stream or body.get("stream") is True
        return wire.ask(call)

    def _cue(self, call: Call) -> Play:
        own = self._scripts.get((call.provider, call.model))
        return own or self._scripts.get((call.provider, None), self._default)

    def _models(self, provider: str) -> list[str]:
        scripted = [model for name, model in self._scripts if name == provider and model]
        return sorted({*MODELS, *scripted})


def _bound(port: int) -> socket.socket:
    """Return a socket that holds the port without listening: connections are refused."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _route(
    method: str, path: Sequence[str], headers: Mapping[str, str]
) -> tuple[WireName | None, str, bool]:
    """Return wire (None: no such address), model and streaming, as far as the address tells."""
    match method, *path:
        case ["POST", "v1", "chat", "completions"]:
            return "openai", "", False
        case ["POST", "v1", "messages"]:
            return "anthropic", "", False
        case ["POST", "v1" | "v1beta", "models", target]:
            model, _, verb = target.partition(":")
            if verb in ("generateContent", "streamGenerateContent"):
                return "gemini", model, verb == "streamGenerateContent"
        case ["GET", "v1" | "v1beta", "models"]:
            # One address for all three: told apart by what each vendor's clients send.
            if "x-goog-api-key" in headers or path[0] == "v1beta":
                return "gemini", "", False
            return "anthropic" if "anthropic-version" in headers else "openai", "", False
    return None, "", False
