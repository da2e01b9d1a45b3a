"""aiohttp at its least, as the floor under our server: `GET` answers a constant body, `POST` reads its body and answers a
number. The same event loop and the same runner as `translog serve`, without anything else. Run as a program: BODY-BYTES.
"""

import asyncio
import signal
import sys
from itertools import count

from aiohttp import web


async def _serve(body_bytes: int) -> None:
    constant = bytes(body_bytes)
    numbers = count()

    async def get(request: web.Request) -> web.Response:
        return web.Response(body=constant, headers={"Content-Type": "application/octet-stream"})

    async def post(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=b"%d" % next(numbers), headers={"Content-Type": "text/plain; charset=utf-8"})

    app = web.Application(client_max_size=64 << 20)
    app.router.add_get("/{path:.*}", get)
    app.router.add_post("/{path:.*}", post)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    host, port = runner.addresses[0][:2]
    print(f"serving constant on http://{host}:{port}", flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
