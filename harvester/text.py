"""Makes text from outside safe for a terminal, a log and a file. Pure."""

import json


def printable(text: str) -> str:
    r"""Replace control characters by JSON escapes, such as ``\u001b``.

    Valid JSON stays valid and keeps its meaning.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
