"""A stand-in for many workspaces: it answers every key, and records when each key was used first.

It serves until its standard input ends. It prints its address at the start. At the end it prints how many requests it
received, and the time of the first request of each key (seconds since the epoch).
"""

import asyncio
import json
import sys
import time

from aiohttp import web

BODY = b'{"message":"success","data":[{"time":"2026-11-20","messages":{"email":[{"variation_name":"A","sent":1}]}}]}'
LIMIT = 250_000


async def main() -> None:
    """Serve on loopback until standard input ends."""
    first: dict[str, float] = {}
    requests = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        first.setdefault(request.headers["Authorization"], time.time())
        reset = (int(time.time()) // 3600 + 1) * 3600
        quota = {"X-RateLimit-Limit": LIMIT, "X-RateLimit-Remaining": LIMIT - 1, "X-RateLimit-Reset": reset}
        headers = {f"{name}": f"{value}" for name, value in quota.items()}
        return web.Response(body=BODY, content_type="application/json", headers=headers)

    app = web.Application()
    app.router.add_get("/sends/data_series", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"requests": requests, "first": sorted(first.values())}))
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
