"""Images as OpenAI makes them: a small PNG in base64, or its address for who asks for that."""

import asyncio
import base64
import struct
import time
import zlib
from typing import Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulators.control import CONTROL
from simulators.dialogues import stable_hash
from simulators.jsontext import json_response
from simulators.openai_wire import error_body
from simulators.serving import open_call, refuse

_SIDE: Final = 16


class ImagesBody(BaseModel):
    """The body of `/v1/images/generations`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str = Field(min_length=1)
    prompt: str = Field(min_length=1, max_length=32_000)
    n: int | None = Field(default=None, ge=1, le=1)
    size: str | None = Field(default=None, pattern=r"^(\d+x\d+|auto)$")
    response_format: Literal["url", "b64_json"] | None = None


async def make_image(request: web.Request) -> web.Response:
    """One image; of the faults `status`, `hang` and `malformed` (an address where bytes were asked for) apply."""
    text, call = await request.read(), open_call(request)
    try:
        body = ImagesBody.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or None
        return refuse(call, json_response(error_body(400, first["msg"], place), 400))
    call.model = body.model
    fault = request.app[CONTROL].take()
    if fault.fault == "status":
        call.outcome, call.status = "status", fault.status or 500
        return json_response(error_body(call.status, "Simulated failure of the image model."), call.status)
    if fault.fault == "hang":
        call.outcome = "hang"
        await asyncio.Event().wait()  # until the connection is lost, which cancels the handler
    made: dict[str, object] = {"b64_json": base64.b64encode(png(body.prompt)).decode()}
    if fault.fault == "malformed" or body.response_format == "url":
        made = {"url": str(request.url.with_path("/v1/images/elsewhere.png"))}
    call.outcome, call.status = "malformed" if fault.fault == "malformed" else "answered", 200
    usage = {"input_tokens": len(body.prompt.split()), "output_tokens": _SIDE, "total_tokens": 0}
    return json_response({"created": int(time.time()), "data": [made], "output_format": "png", "usage": usage})


def png(prompt: str) -> bytes:
    """A square PNG in one colour, which follows from the prompt."""
    colour = stable_hash(prompt).to_bytes(4, "big")[:3]
    rows = (b"\0" + colour * _SIDE) * _SIDE
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
