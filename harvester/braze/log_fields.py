"""Fields of log lines about readings and bugs. None of them contains a value from outside except ids."""

import traceback

from harvester.model import Reading


def get_ids(reading: Reading) -> dict[str, str]:
    """Return the workspace and the ids of a reading's send."""
    pair = reading.pair
    return {"workspace": pair.workspace, "campaign_id": pair.campaign_id, "send_id": pair.send_id}


def locate_bug(bug: Exception) -> dict[str, str]:
    """Return the kind of an error and the last line of our code that it passed, but no value."""
    location = ""
    for frame, line in traceback.walk_tb(bug.__traceback__):
        if "harvester" in frame.f_globals.get("__name__", ""):
            location = f"{frame.f_globals['__name__']}:{line}"
    return {"error": type(bug).__name__, "location": location, "hint": "report it; the pair is retried later"}
