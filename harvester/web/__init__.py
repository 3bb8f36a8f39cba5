"""The web server: probes, metrics and the status page. It changes nothing."""

from harvester.web.server import WebServer

__all__ = ["WebServer"]
