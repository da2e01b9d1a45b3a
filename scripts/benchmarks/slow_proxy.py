"""A slow witness: hands every POST on to another one after a wait, and its answer back. Run as a program: URL WAIT-SECONDS."""

import asyncio
import signal
import sys

import aiohttp
from aiohttp import web

_BYTES_MAX = 1 << 20


async def _serve(url: str, wait_s: float) -> None:
    async with aiohttp.ClientSession() as session:

        async def post(request: web.Request) -> web.Response:
            body = await request.read()
            await asyncio.sleep(wait_s)
            async with session.post(url + request.path, data=body) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

        app = web.Application(client_max_size=_BYTES_MAX)
        app.router.add_post("/{path:.*}", post)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        host, port = runner.addresses[0][:2]
        print(f"serving slow on http://{host}:{port}", flush=True)
        await stop.wait()
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], float(sys.argv[2])))
