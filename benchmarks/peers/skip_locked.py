# /// script
# dependencies = ["psycopg[binary]==3.3.9"]
# ///
"""A plain loop in psycopg: it locks due pairs with ``SKIP LOCKED``, and marks them as captured in the same transaction.

It has one table and one index, and keeps no outcomes and no parts. It executes commands like ``ledger_owner.py``; its
arguments are the database's URL and the number of pairs in a transaction.
"""

import json
import sys
import time

import psycopg

PAGE = 2000
TABLE = """
SELECT pg_advisory_xact_lock(1);
CREATE TABLE IF NOT EXISTS job (
    id bigserial PRIMARY KEY, campaign_id text NOT NULL, send_id text NOT NULL, expires_at float8 NOT NULL,
    state text NOT NULL DEFAULT 'due', verdict text, UNIQUE (campaign_id, send_id)
);
CREATE INDEX IF NOT EXISTS job_due ON job (expires_at, id) WHERE state = 'due';
"""
INSERT = "INSERT INTO job (campaign_id, send_id, expires_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
FIND = "SELECT id FROM job WHERE state = 'due' ORDER BY expires_at, id LIMIT %s FOR UPDATE SKIP LOCKED"
MARK = "UPDATE job SET state = 'captured', verdict = 'activity' WHERE id = ANY(%s)"


def main(url: str, at_once: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(TABLE)
        connection.commit()
        print("ready", flush=True)
        for line in sys.stdin:
            began = time.perf_counter()
            match line.split():
                case "enqueue", first, count, _:
                    enqueue(connection, int(first), int(first) + int(count))
                case ("capture",):
                    while capture(connection, at_once):
                        pass
            print(json.dumps({"began": began, "ended": time.perf_counter(), "seconds": {}}), flush=True)


def enqueue(connection: psycopg.Connection, first: int, end: int) -> None:
    for start in range(first, end, PAGE):
        rows = [(f"campaign-{at // 20}", f"send-{at}", time.time()) for at in range(start, min(start + PAGE, end))]
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(INSERT, rows)


def capture(connection: psycopg.Connection, at_once: int) -> bool:
    with connection.transaction():
        ids = [row[0] for row in connection.execute(FIND, (at_once,))]
        connection.execute(MARK, (ids,))
    return bool(ids)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
