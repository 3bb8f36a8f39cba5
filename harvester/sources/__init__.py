"""Where pairs come from: files that a person gives to a command, and messages that a service receives.

Files: ``input`` reads lists (``pair_list``, ``rows``) and Currents (``currents``, ``avro``).
Messages: a ``trigger`` receives them from a broker (``brokers``), and ``message_handler`` enqueues what they contain
(``message``, ``importer``). Both use the rules for ids and times in ``fields``.
"""

from harvester.sources.input import Input
from harvester.sources.rejects_file import RejectsFile

__all__ = ["Input", "RejectsFile"]
