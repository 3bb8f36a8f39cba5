"""The web server: probes, metrics, the status page and the search for a send. It changes nothing."""

from harvester.web.server import WebServer

__all__ = ["WebServer"]
