"""HEAD: what GET would answer, without the body."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Heads:
    """ASGI middleware that has HEAD answered by what answers GET, up to the body.

    Args:
        app: what answers.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request; end it once its headers are known."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        with anyio.CancelScope() as answering:

            async def begin(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body", "body": b""})
                    # A stream of events has no end, and a file need not be read.
                    answering.cancel()

            await self.app({**scope, "method": "GET"}, receive, begin)
