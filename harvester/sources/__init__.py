"""Reads pairs: from the files of a command, and from the messages that a service receives.

``input`` reads the files of a command: lists (``lists``) and Currents (``currents``, ``avro``). ``messages`` receives
messages from a broker (``brokers``) and enqueues their pairs with ``importer``. All share the rules for columns, ids
and times in ``columns``, ``fields`` and ``times``.
"""

from harvester.sources.input import Input
from harvester.sources.lists.list_options import ListOptions
from harvester.sources.lists.pair_list import EnqueueNew
from harvester.sources.rejects_file import RejectsFile

__all__ = ["EnqueueNew", "Input", "ListOptions", "RejectsFile"]
