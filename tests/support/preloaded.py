"""What the server of warm processes has done before it forks the first one, see ``warm_process``."""

from tests.support import compiled_statements

compiled_statements.share()
compiled_statements.compile_all()
