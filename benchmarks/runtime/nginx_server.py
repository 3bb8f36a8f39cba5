"""Runs nginx, which sends the same prepared response as ``fast_server.py`` and uses less CPU time than Python.

The script prints the address at the start, and serves until its standard input ends. The responses report an unused
quota whose window resets an hour after the start. Install ``nginx`` (``nginx-light`` is enough) to use it.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.runtime.fast_server import BODY, LIMIT
from benchmarks.runtime.run_process import find_free_port

CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    open_file_cache max=1;
    server {{
        listen 127.0.0.1:{port};
        location = /sends/data_series {{
            alias {folder}/body.json;
            default_type application/json;
            etag off;
            add_header X-RateLimit-Limit {limit};
            add_header X-RateLimit-Remaining {remaining};
            add_header X-RateLimit-Reset {reset};
        }}
    }}
}}
"""


def main() -> None:
    """Serve on loopback until standard input ends."""
    if shutil.which("nginx") is None:
        raise SystemExit("install nginx to run this benchmark, for example with: apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), find_free_port()
        folder.chmod(0o755)  # nginx runs its worker as another user if root starts it
        (folder / "body.json").write_bytes(BODY)
        config = CONFIG.format(
            folder=folder, port=port, limit=LIMIT, remaining=LIMIT - 1, reset=int(time.time()) + 3600
        )
        (folder / "nginx.conf").write_text(config)
        command = ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            _wait_until_connected(port, server)
            print(f"http://127.0.0.1:{port}", flush=True)
            sys.stdin.read()
        finally:
            server.terminate()
            server.wait()


def _wait_until_connected(port: int, server: "subprocess.Popen[bytes]") -> None:
    while server.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise SystemExit("nginx ended; its error is above")


if __name__ == "__main__":
    main()
