"""A provider that plays a script, for tests that need no socket."""

from collections.abc import AsyncIterator, Iterable

from zejzl.clock import Clock, SystemClock
from zejzl.messages import Delta, Reply, Request, Usage

Step = str | BaseException | float | tuple[str, BaseException] | None


class ScriptedProvider:
    """Answers with the next step of its script; the last step repeats for ever.

    A step is a text (the answer), an exception (raised), a text and an exception (a stream that
    breaks after the text), a number (seconds of silence before the next step) or None (silence
    for ever).

    >>> provider = ScriptedProvider([TimeoutError(), "well again"])

    Attributes:
        requests: Everything it was asked, oldest first.
        cleaned_up: Whether the bus has let go of it.
    """

    def __init__(
        self,
        script: Iterable[Step] = ("ok",),
        *,
        name: str = "scripted",
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.default_model = "scripted-1"
        self.requests: list[Request] = []
        self.cleaned_up = False
        self._clock = clock or SystemClock()
        if isinstance(script, str):  # a text is an iterable of letters
            raise TypeError(f"a script is a list of steps: [{script!r}]")
        self.play(*script)

    def play(self, *script: Step) -> None:
        """Put another script in place of this one.

        Raises:
            ValueError: If it has no step.
            TypeError: If one of them is no step.
        """
        if not script:
            raise ValueError("a script needs at least one step")
        for step in script:
            if not isinstance(step, str | BaseException | float | int | tuple | None):
                raise TypeError(f"a step is a text, an exception, seconds or None, not {step!r}")
        self._script = list(script)

    async def generate(self, request: Request) -> Reply:
        """Play the next step."""
        text, failure = await self._next(request)
        if failure is not None:
            raise failure
        return self._reply(request, text)

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Play the next step word by word."""
        text, failure = await self._next(request)
        for word in text.split():
            yield Delta(f"{word} ")
        if failure is not None:
            raise failure
        yield Delta("", reply=self._reply(request, text))

    async def cleanup(self) -> None:
        """Note that the bus has let go."""
        self.cleaned_up = True

    def _reply(self, request: Request, text: str) -> Reply:
        return Reply(
            text=text,
            provider=self.name,
            model=request.model or self.default_model,
            usage=Usage(len(request.content.split()), len(text.split())),
        )

    async def _next(self, request: Request) -> tuple[str, BaseException | None]:
        self.requests.append(request)
        while True:
            step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
            match step:
                case str():
                    return step, None
                case BaseException():
                    return "", step
                case (text, failure):
                    return text, failure
                case None:
                    await self._clock.sleep(float("inf"))
                case _:
                    await self._clock.sleep(step)
