"""Plausible snapshots for tests of the web server: a healthy service, and one with many failures."""

import random
from dataclasses import replace

from harvester.books import Books
from harvester.condition import Component, Condition
from harvester.histogram import HistogramState
from harvester.ledger import DayOfDeadlines, Rejection
from harvester.model import Pair, Verdict
from harvester.monitor.snapshot import QuotaSample, Snapshot, StoreState, TriggerState, Window, WorkspaceState

NOW = 1_795_527_667.0
"""Tuesday, 24 November 2026, 13:41:07 UTC."""

DAY = 86_400.0
TODAY = NOW // DAY * DAY
HOUR = NOW // 3600 * 3600


def build_window_history(limit: int, *, ours: float, others: float, burst: int = 0) -> tuple[QuotaSample, ...]:
    """A window with a steady rate of requests, and a burst of other clients at minute 22."""
    chance = random.Random(7)
    series, mine, theirs = [], 0.0, 0.0
    for at in range(0, int(NOW - HOUR), 60):
        series.append(QuotaSample(HOUR + at, round(mine), round(theirs)))
        mine += ours * 60 * chance.uniform(0.7, 1.3)
        theirs += others * 60 * chance.uniform(0.3, 1.7) + (burst / 3 if 1320 <= at < 1500 else 0)
    return tuple(series)


def build_deadlines(most: int, at_risk: int = 0) -> tuple[DayOfDeadlines, ...]:
    """Fifteen days of deadlines, with few on weekends."""
    chance = random.Random(3)
    days = []
    for ahead in range(15):
        weekend = (ahead + 1) % 7 in (5, 6)
        pairs = round(most * chance.uniform(0.5, 1) * (0.15 if weekend else 1))
        days.append(DayOfDeadlines(TODAY + ahead * DAY, pairs if ahead else at_risk + 31, at_risk if not ahead else 0))
    return tuple(days)


def build_workspace(name: str = "eu", **changes) -> WorkspaceState:
    """A healthy workspace."""
    spent = build_window_history(250_000, ours=26.0, others=19.0)
    window = Window(limit=250_000, remaining=250_000 - spent[-1].ours - spent[-1].others, reserve=50_000,
                    began_at=HOUR, resets_at=HOUR + 3600, spent=spent)  # fmt: skip
    well = WorkspaceState(
        name=name, last_captured_at=NOW - 180, pace=41.3, in_flight=9, window=window, waited_seconds=1234.5,
        readings={"waiting": 81_234, "due": 1_204, "leased": 900},
        nearest_deadline=NOW + 1.7 * DAY, deadlines=build_deadlines(9_000),
        requests={"first": 812_331, "retry_after_timeout": 412, "after_429": 3},
        responses={"status_200": 812_319, "status_500": 400, "disconnected": 12, "status_429": 3},
    )  # fmt: skip
    return replace(well, **changes)


def healthy() -> Snapshot:
    """A quiet afternoon, with two workspaces."""
    us = build_workspace(
        "us", window=Window(), readings={"waiting": 3_120}, deadlines=build_deadlines(400), pace=1000.0
    )
    return Snapshot(
        clock_difference_seconds=0.4,
        taken_at=NOW, started_at=NOW - 12.3 * DAY, version="0.1.0", workspaces=(build_workspace(), us),
        triggers=(
            TriggerState("sends", "rabbitmq", messages={"enqueued": 91_202, "dead_lettered": 2}),
            TriggerState("imports", "sqs", messages={"enqueued": 14}),
        ),
        store=StoreState(place="s3://lake/braze", batches={"sealed": 1}, sealed_bytes=1_400_000,
                    parts=5_021, rows=48_120_334, part_bytes=9_400_000_000),
        books=Books(accepted=1_000_000, expired=0, pending=86_458, rejected={"status_400": 5},
                    never_read=6_458, next_reading_at=NOW + 7_200,
                    captured={Verdict.ACTIVITY: 880_000, Verdict.ZERO: 21_400, Verdict.EMPTY: 12_137}),
        rejections=(
            Rejection(Pair("eu", "6b1f3c1e-7a9c-4b1f-9d52-0a6a2c5e7a11", "65f0c2d1e4b0a1c2d3e4f5a6"), "status_400",
                      "the campaign is archived", NOW - 3_000),
        ),
    )  # fmt: skip


def unhealthy() -> Snapshot:
    """A night with many failures, described in hostile ids and texts."""
    base = healthy()
    spent = build_window_history(250_000, ours=24.0, others=20.0, burst=90_000)
    window = replace(base.workspaces[0].window, spent=spent, remaining=250_000 - spent[-1].ours - spent[-1].others)
    eu = build_workspace(
        window=window,
        hold_cause="rate_limited",
        hold_until=HOUR + 3601.4,
        pace=0.0,
        at_risk=1_342,
        expired=3,
        nearest_deadline=NOW + 1_500,
        deadlines=build_deadlines(9_000, at_risk=1_342),
    )
    us = build_workspace(
        "us",
        last_captured_at=0.0,
        window=Window(),
        hold_cause="halted",
        hold_until=NOW + 312,
        pace=0.0,
        halt_reason="status 401: Invalid API key",
        halted_since=NOW - 5_000,
        readings={"waiting": 3_120, "due": 88},
        deadlines=build_deadlines(400),
        next_due_at=NOW - 60,
    )
    harm = Rejection(
        Pair("eu", "<script>alert(1)</script>", "a\x1b[31m\n\u202eb"),
        "status_404",
        '"><img src=x onerror=alert(2)> ' + "x" * 400,
        NOW - 60,
    )
    return replace(
        base, captures={("activity", "d3"): 7}, lateness=HistogramState(((60.0, 1), (300.0, 2)), 3, 4000.0),
        workspaces=(eu, us), rejections=(harm, *base.rejections),
        triggers=(replace(base.triggers[0], connected=False, last_error="connection refused by rabbit.internal:5671"),
                  base.triggers[1]),
        store=replace(base.store, problem="s3://lake answers 503 SlowDown; it is tried again",
                      unavailable=1,
                      batches={"sealed": 212, "conflict": 1}, sealed_bytes=311_000_000),
        books=Books(accepted=1_000_000, captured={Verdict.ACTIVITY: 880_000}, rejected={"status_404": 6}, expired=3,
                    pending=86_458),
        conditions=(
            Condition(Component.STORE, "status_503", NOW - 7_200,
                      detail="s3://lake answers 503 SlowDown; it is tried again"),
            Condition(Component.KEY, "status_401", NOW - 5_000, "us", "status 401: Invalid API key"),
            Condition(Component.ENDPOINT, "connection_refused", NOW - 120, "eu",
                      "cannot connect to https://rest.fra-01.braze.eu: connection refused"),
            Condition(Component.BROKER, "connection_refused", NOW - 300, "sends",
                      "connection refused by rabbit.internal:5671"),
        ),
    )  # fmt: skip
