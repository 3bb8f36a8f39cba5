# /// script
# dependencies = ["procrastinate==3.10.0", "psycopg[binary]==3.3.9"]
# ///
"""procrastinate, a queue of jobs in PostgreSQL: a job for each pair, and a worker with 64 tasks in each process.

It executes commands like ``ledger_owner.py``; its argument is the database's URL.
"""

import asyncio
import json
import sys
import time

import procrastinate

PAGE, TASKS = 2000, 64


async def main(url: str) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    @app.task(name="capture", pass_context=False)
    async def capture(campaign_id: str, send_id: str) -> None:
        """Request nothing: only the queue is measured."""

    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        print("ready", flush=True)
        for line in sys.stdin:
            began = time.perf_counter()
            match line.split():
                case "enqueue", first, count, _:
                    end = int(first) + int(count)
                    for start in range(int(first), end, PAGE):
                        numbers = range(start, min(start + PAGE, end))
                        await capture.batch_defer_async(
                            *({"campaign_id": f"campaign-{at // 20}", "send_id": f"send-{at}"} for at in numbers)
                        )
                case ("capture",):
                    await app.run_worker_async(wait=False, concurrency=TASKS, install_signal_handlers=False)
            print(json.dumps({"began": began, "ended": time.perf_counter(), "seconds": {}}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
