"""Text from outside, made fit for a terminal, a log and a file. Pure."""

import json


def printable(text: str) -> str:
    r"""Write characters that no terminal should obey as JSON escapes, such as ``\u001b``; the others stay.

    JSON stays the JSON it was.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
