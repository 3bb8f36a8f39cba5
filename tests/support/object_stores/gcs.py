"""A stub of Google Cloud Storage."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from tests.support.object_stores.bucket import BUCKET, Bucket
from tests.support.processes import serve_app


class _Objects:
    """The part of the XML interface that harvester uses, with its precondition."""

    def __init__(self) -> None:
        """Start without objects."""
        self._objects: dict[str, bytes] = {}

    async def put(self, request: web.Request) -> web.Response:
        """Create an object, unless its name is taken and the precondition says that it must be free."""
        name, data = request.match_info["name"], await request.read()
        if request.headers.get("x-goog-if-generation-match") == "0" and name in self._objects:
            return web.Response(status=412, text="<Error><Code>PreconditionFailed</Code></Error>")
        self._objects[name] = data
        return web.Response(headers={"ETag": '"1"', "x-goog-generation": "1"})

    async def get(self, request: web.Request) -> web.Response:
        """Return an object."""
        name = request.match_info["name"]
        if name not in self._objects:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": '"1"', "Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"}
        return web.Response(body=self._objects[name], headers=headers)

    async def list_names(self, request: web.Request) -> web.Response:
        """List the objects with a prefix."""
        prefix = request.query.get("prefix", "")
        entries = "".join(
            f"<Contents><Key>{name}</Key><Size>{len(data)}</Size><ETag>&quot;1&quot;</ETag>"
            "<LastModified>2026-11-24T00:00:00.000Z</LastModified></Contents>"
            for name, data in sorted(self._objects.items())
            if name.startswith(prefix)
        )
        return web.Response(text=f"<ListBucketResult>{entries}</ListBucketResult>", content_type="application/xml")


@contextmanager
def gcs(folder: Path) -> Iterator[Bucket]:
    """Serve the stub: no server of the XML interface is available."""
    objects, app = _Objects(), web.Application()
    app.router.add_put(f"/{BUCKET}/{{name:.+}}", objects.put)
    app.router.add_get(f"/{BUCKET}/{{name:.+}}", objects.get)
    app.router.add_get(f"/{BUCKET}", objects.list_names)
    app.router.add_get(f"/{BUCKET}/", objects.list_names)
    folder.mkdir(parents=True)
    with serve_app(app) as port:
        account = {
            "gcs_base_url": f"http://127.0.0.1:{port}",
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        file = folder / "account.json"
        file.write_text(json.dumps(account))
        env = {"GOOGLE_SERVICE_ACCOUNT": str(file), "GOOGLE_ALLOW_HTTP": "true"}
        yield Bucket("gcs", f"gs://{BUCKET}", port, env)
