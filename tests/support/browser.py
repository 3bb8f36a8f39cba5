"""A real headless Chromium for tests, driven by its DevTools protocol over aiohttp."""

import asyncio
import base64
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.processes import require_program, run_server

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip


class Tab:
    """One tab. ``console`` contains the console's output, ``requested`` the requested addresses."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Use an open connection."""
        self.console: list[str] = []
        self.requested: list[str] = []
        self._socket = socket
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._socket:
            event = message.json()
            match event.get("method"):
                case None:
                    self._replies.pop(event["id"]).set_result(event)
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Log.entryAdded":
                    self.console.append(event["params"]["entry"]["text"])
                case "Runtime.exceptionThrown":
                    self.console.append(event["params"]["exceptionDetails"]["text"])
                case "Runtime.consoleAPICalled":
                    self.console.append(str(event["params"]["args"]))
                case "Network.requestWillBeSent":
                    self.requested.append(event["params"]["request"]["url"])

    async def send_command(self, method: str, **parameters) -> dict[str, Any]:
        """Run one command of the protocol."""
        number = len(self._replies) + 1 + id(parameters) % 1_000_000_000
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(reply, 30)
        assert "error" not in answer, answer
        return answer["result"]

    async def visit(self, url: str, *, width: int = 1280, dark: bool = False, script: bool = True) -> None:
        """Open a page at a width, in light or dark mode, and wait until it is loaded."""
        self._loaded.clear()
        self.console.clear()
        self.requested.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send_command(f"{domain}.enable")
        await self.send_command("Emulation.setScriptExecutionDisabled", value=not script)
        await self.send_command(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send_command("Emulation.setEmulatedMedia", features=[scheme])
        await self.send_command("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), 30)

    async def run(self, script: str) -> Any:
        """Run a script in the page; return its value, or that of its promise."""
        result = await self.send_command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def take_screenshot(self) -> bytes:
        """Return a screenshot of the whole page, as PNG."""
        shot = await self.send_command("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        """Stop listening."""
        self._listening.cancel()


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Tab]:
    """Start a browser with an empty profile, and yield its first tab."""
    port_file = folder / "DevToolsActivePort"
    with run_server(
        require_program("chromium"), *FLAGS, f"--user-data-dir={folder}", "about:blank", stdin=subprocess.DEVNULL
    ):
        async with asyncio.timeout(60):
            while not port_file.exists() or not port_file.read_text().strip():
                await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                try:
                    yield tab
                finally:
                    tab.close()
