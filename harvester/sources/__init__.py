"""Reads pairs: from the files of a command, and from the messages that a service receives.

Files: ``input`` reads lists (``list_file``, ``pair_list``) and Currents (``currents``, ``avro``).
Messages: a ``trigger`` receives them from a broker (``brokers``), and ``message_handler`` enqueues their pairs
(``message``, ``importer``). Both use the rules for ids and times in ``fields``.
"""

from harvester.sources.input import Input
from harvester.sources.list_options import ListOptions
from harvester.sources.rejects_file import RejectsFile

__all__ = ["Input", "ListOptions", "RejectsFile"]
