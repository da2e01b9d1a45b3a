"""Reads request bodies: bounded as sent, bounded decompressed, in bounded time.

Rules: gzip and zstd only, any other Content-Encoding is 415; a body that is cut short or continues after its end is malformed,
one that takes too long is pushed back; what a decompressor may hold is limited as well as what comes out of it. The
application runs with aiohttp's own decompression off, so that all limits are ours.
"""

import asyncio
import sys
import zlib
from typing import Protocol

from aiohttp import web

from translog.errors import MalformedError, PushbackError, TooLargeError, UnsupportedMediaError
from translog.server.listener import hold_body
from translog.server.settings import ServerSettings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODINGS = ("gzip", "zstd")
ZSTD_WINDOW_LOG_MAX = 23
"""8 MiB: what frames of all levels up to 19 need. The decoder allocates as much as a frame asks for."""
_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX}
_BODY_RETRY_MS = 1_000
_SLICE_BYTES_MIN = 512
_SLICE_BYTES_MAX = 64 * 1024


class _Decompressor(Protocol):
    """What zlib and zstd decompressors have in common here."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


async def read_body(request: web.Request, settings: ServerSettings) -> bytes:
    """The whole body, decompressed. Raises TooLargeError, MalformedError, UnsupportedMediaError, PushbackError."""
    encoding = ",".join(request.headers.getall("Content-Encoding", ["identity"])).strip().lower()
    if encoding not in ("identity", *ENCODINGS):
        raise UnsupportedMediaError(
            "this Content-Encoding is not supported",
            hint=f"send one of {', '.join(ENCODINGS)}, or none",
            code="unsupported-encoding",
        )
    declared = request.content_length
    if declared is not None and declared > settings.body_bytes_max:
        raise _too_large(settings.body_bytes_max)
    try:
        if request.content.is_eof():  # a small body came with the headers: nothing to wait for
            body = request.content.read_nowait()
            if len(body) > settings.body_bytes_max:
                raise _too_large(settings.body_bytes_max)
            hold_body(request, len(body))
        else:
            body = await _receive(request, settings)
    except TimeoutError:
        raise PushbackError(
            f"the body did not arrive within {settings.body_timeout_ms} ms; nothing was written",
            hint="send smaller batches",
            code="body-timeout",
            retry_after_ms=_BODY_RETRY_MS,
        ) from None
    except web.RequestPayloadError:
        raise MalformedError("the body ended before its declared length", code="body-cut-short") from None
    if encoding == "identity":
        return body
    decoded = await asyncio.to_thread(decompress, body, encoding, size_max=settings.decoded_bytes_max)
    hold_body(request, len(decoded))
    return decoded


async def _receive(request: web.Request, settings: ServerSettings) -> bytes:
    body = bytearray()
    async with asyncio.timeout(settings.body_timeout_ms / 1000):
        async for chunk in request.content.iter_any():
            hold_body(request, len(chunk))
            body += chunk
            if len(body) > settings.body_bytes_max:
                raise _too_large(settings.body_bytes_max)
    return bytes(body)


def decompress(data: bytes, encoding: str, *, size_max: int) -> bytes:
    """Every member or frame of `data`. Raises TooLargeError as soon as the result exceeds `size_max`, MalformedError.

    Input goes in slices that grow within a member, for what follows a member's end is copied: many small members would
    otherwise cost the square of their number.
    """
    result = bytearray()
    position = 0
    while position < len(data) or not position:
        decompressor = _decompressor(encoding)
        slice_bytes = _SLICE_BYTES_MIN
        while not decompressor.eof:
            piece = data[position : position + slice_bytes]
            if not piece:
                raise MalformedError(f"the {encoding} body is cut short", code="bad-compression")
            try:
                result += decompressor.decompress(piece, size_max - len(result) + 1)
            except (zlib.error, zstd.ZstdError):
                raise MalformedError(
                    f"the body is not valid {encoding}, or needs more memory than is given to it",
                    hint=_HINTS.get(encoding, ""),
                    code="bad-compression",
                ) from None
            if len(result) > size_max:
                raise TooLargeError(
                    f"the body is larger than {size_max} bytes when decompressed",
                    hint="send smaller batches",
                    code="body-too-large",
                )
            position += len(piece)
            slice_bytes = min(2 * slice_bytes, _SLICE_BYTES_MAX)
        position -= len(decompressor.unused_data)
    return bytes(result)


_HINTS = {"zstd": f"windows of at most {1 << ZSTD_WINDOW_LOG_MAX >> 20} MiB: levels up to 19, without --long"}


def _decompressor(encoding: str) -> _Decompressor:
    return zlib.decompressobj(wbits=31) if encoding == "gzip" else zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)


def _too_large(size_max: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {size_max} bytes", hint="send smaller batches", code="body-too-large")
