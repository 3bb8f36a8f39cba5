"""Packages import only from lower layers, and libraries, time and environment are used only in named files."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "harvester"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = {
    "model": 0, "errors": 0, "text": 0, "clock": 0, "private_files": 0, "signals": 0,
    "histogram": 0,
    "books": 1, "place": 1, "schedule": 1, "causes": 1, "condition": 1, "observability": 1,
    "settings": 2, "formatting": 2,
    "storage": 3, "datasets": 3, "simulator": 3,
    "sources": 4, "ledger": 4, "braze": 4,
    "engine": 5,
    "monitor": 6, "commands": 6,
    "web": 7,
    "service": 8,
    "cli": 9, "__main__": 10,
}  # fmt: skip

ALLOWED_IMPORTERS = {
    "aio_pika": {"sources/brokers/rabbitmq.py", "sources/brokers/rabbitmq_messages.py"},
    "aiobotocore": {"sources/brokers/sqs.py"},
    "aiohttp": {"braze/aiohttp_import.py", "simulator", "web/search_handlers.py", "web/server.py"},
    "aiolimiter": {"braze/pacer.py"},
    "botocore": {"sources/brokers/sqs.py"},
    "click": {"cli"},
    "duckdb": {"datasets"},
    "markupsafe": {"web"},
    "nats": {"sources/brokers/nats.py"},
    "obstore": {"storage/object_store.py", "storage/store_failures.py"},
    "opentelemetry": {"observability/traces.py"},
    "orjson": {
        "braze/columns.py",
        "braze/rows.py",
        "braze/series.py",
        "datasets/layout.py",
        "ledger/json_rows.py",
        "ledger/plans.py",
        "simulator",
        "storage/marker.py",
        "sources/messages/json_objects.py",
        "sources/rejects_file.py",
        "sources/lists/json_rows.py",
        "sources/messages/message.py",
        "observability/logs.py",
        "cli/output.py",
    },
    "prometheus_client": {"web/metrics.py"},
    "pydantic": {"settings"},
    "python_calamine": {"sources/lists/workbook_process.py"},
    "redis": {"sources/brokers/redis.py", "sources/brokers/redis_replies.py"},
    "rich": {"cli/progress.py"},
    "sqlalchemy": {"ledger"},
    "sqlite3": {"ledger/sqlite.py", "sources/send_times.py"},
    "tenacity": {"braze/client.py"},
    "uvloop": {"cli/startup.py"},
    "yarl": {"braze/transport.py", "braze/transport_errors.py"},
    "zstandard": {"storage/part.py", "datasets/part_files.py", "sources/lists/compression.py"},
}
"""Which files or packages may import a library. orjson is used everywhere; only its hot path is in braze."""


def imported(module: Path) -> list[str]:
    """All modules that a module imports, those inside functions too."""
    names = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def is_module(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in a module of the package, and not of the package."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.parent.with_suffix(".py").exists()


def get_package(module: Path) -> str:
    """The package of a module: the first name below harvester."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_a_module_imports_from_lower_layers_or_its_own_package():
    """A reader can start at layer 0: no module depends on a higher layer."""
    for module in MODULES:
        here, names = get_package(module), imported(module)
        assert here != "__init__" or not names, module
        for name in names:
            if name.startswith("harvester.") and name.split(".")[1] in LAYERS:
                there = name.split(".")[1]
                assert there == here or LAYERS[there] < LAYERS[here], f"{module} imports {name}"


def test_each_library_is_imported_only_where_it_may_be():
    """A library can be replaced by rewriting the files named here."""
    for module in MODULES:
        here = module.relative_to(PACKAGE)
        for library in {name.split(".")[0] for name in imported(module)} & set(ALLOWED_IMPORTERS):
            assert ALLOWED_IMPORTERS[library] & {str(here), here.parts[0]}, f"{here} imports {library}"


def test_rich_is_imported_only_where_progress_is_drawn():
    """A command without progress starts without rich. Unlike ``test_imports``, this covers commands on a terminal."""
    tree = ast.parse((PACKAGE / "cli/progress.py").read_text())
    importing = [getattr(node, "name", "the module") for node in tree.body if "from rich" in ast.unparse(node)]
    assert importing == ["_drawing"]


def test_the_ledger_is_used_only_through_its_interfaces():
    """Other packages import none of its modules, so none can hold a connection or pass a function over one."""
    for module in MODULES:
        if get_package(module) != "ledger":
            below = [name for name in imported(module) if name.startswith("harvester.ledger.") and is_module(name)]
            assert not below, f"{module} imports {below}"


def test_tests_and_benchmarks_use_no_sql_of_ours():
    """They use the interfaces, or read the file with the database's own client; helpers watch statements."""
    helpers = {
        ROOT / "tests/support/ledger_file.py",
        ROOT / "tests/support/compiled_statements.py",
        ROOT / "tests/support/postgresql.py",
        ROOT / "benchmarks/runtime/workspaces_scenes.py",
    }
    for module in (*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/[!.]*/**/*.py")):
        if module not in helpers:
            assert not [name for name in imported(module) if name.startswith("sqlalchemy")], module


def test_only_clock_and_settings_read_time_and_environment():
    """Tests own the clock, and settings are read in one place; the stand-in API has a clock of its own."""
    for module in MODULES:
        source, here = module.read_text(), get_package(module)
        if here not in ("clock", "simulator"):
            for call in ("time.time(", "time.monotonic(", "datetime.now(", "utcnow("):
                assert call not in source, f"{module}: {call}"
        if here != "settings":
            for way in ("os.environ", "getenv"):
                assert way not in source, f"{module}: {way}"


def test_every_package_has_its_layer():
    """A new package must be added to a layer."""
    assert {get_package(module) for module in MODULES} - {"__init__"} == set(LAYERS)
