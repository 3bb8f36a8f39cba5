"""The HTML document around the content of each page: its style, script, icon and content security policy."""

import base64
import hashlib
from collections.abc import Iterable
from importlib.resources import files
from typing import TypeVar

from markupsafe import Markup

from harvester.web import pictures

T = TypeVar("T", bound=str)

_STYLE = files("harvester.web").joinpath("page.css").read_text(encoding="utf-8")
_SCRIPT = files("harvester.web").joinpath("page.js").read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_digest(_SCRIPT)}; style-src {_digest(_STYLE)}; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The content security policy of all pages: their style and script, requests and forms to this server, nothing else."""

_ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E{}%3C/svg%3E"
_HEALTHY_ICON = _ICON.format("%3Ccircle cx='8' cy='8' r='6' fill='%232a7d5f'/%3E")
_UNHEALTHY_ICON = _ICON.format("%3Cpath d='M8 1l7 14H1z' fill='%23c8321f'/%3E")

_DOCUMENT = Markup("""<!doctype html>
<html lang="en" data-version="{version}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="{icon}">
<style>{style}</style>
{refresh}</head>
<body>
{hatches}
<p id="stale" role="alert" hidden></p>
<main>
{content}
</main>
{script}</body>
</html>
""")
MAX_BYTES = 60_000
"""The size of what is repeated on a page, such as sends or workspaces. With all else, a page takes at most 100 KB."""

_REFRESH = Markup('<noscript><meta http-equiv="refresh" content="10"></noscript>\n')


def render_document(
    title: str, content: Markup, *, version: str = "", healthy: bool = True, refreshes: bool = False
) -> str:
    """Return a document. One that ``refreshes`` replaces its content every few seconds."""
    document = _DOCUMENT.format(
        version=version,
        title=f"{title} · harvester",
        icon=Markup(_HEALTHY_ICON if healthy else _UNHEALTHY_ICON),  # noqa: S704 - a constant
        style=Markup(_STYLE),  # noqa: S704 - our own file
        refresh=_REFRESH if refreshes else "",
        script=Markup("<script>{}</script>\n").format(Markup(_SCRIPT)) if refreshes else "",  # noqa: S704 - our own file
        hatches=pictures.HATCHES if refreshes else "",
        content=content,
    )
    return str(document)


def take_whole(blocks: Iterable[T], *, most_bytes: int = MAX_BYTES) -> list[T]:
    """Return the first blocks that take at most ``most_bytes`` together, at least one."""
    taken: list[T] = []
    size = 0
    for each in blocks:
        size += len(each.encode("utf-8", "replace"))
        if size > most_bytes and taken:
            break
        taken.append(each)
    return taken
