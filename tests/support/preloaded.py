"""What the server of warm processes has done before it forks the first one, see ``warm_process``."""

import harvester.ledger.postgresql  # noqa: F401 - a process would import it only for a ledger in PostgreSQL
from tests.support import compiled_statements

compiled_statements.share()
compiled_statements.compile_all()
