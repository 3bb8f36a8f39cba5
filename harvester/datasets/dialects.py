"""How each database or library names types and quotes names. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from harvester.datasets.sql import quote_text


class ColumnType(Enum):
    """The type of a column of the rows, from the narrowest to the widest."""

    INTEGER = 0
    DECIMAL = 1
    TEXT = 2


class Column(NamedTuple):
    """A column of the rows."""

    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of SQL: the names of the types for integers, decimals and texts, and how it differs from others.

    ``quote`` surrounds names in table definitions, ``query_quote`` in queries. ``pattern`` is a test whether a text
    matches a regular expression. ``table_end`` follows the columns of the table of the parts, ``latest_end`` those of
    the table that MERGE changes.
    """

    types: tuple[str, str, str]
    pattern: str
    quote: str = '"'
    query_quote: str = ""
    upper_case: bool = False
    table_start: str = "CREATE TABLE"
    table_end: str = ""
    latest_end: str = ""

    def name_type(self, column: Column) -> str:
        """Return the type of a column."""
        return self.types[column.type.value]

    def define_columns(self, columns: Sequence[Column]) -> str:
        """Return the columns of a table definition, one a line."""
        return ",\n".join(f"  {self.define_name(each.name)} {self.name_type(each)}" for each in columns)

    def define_name(self, name: str) -> str:
        """Quote a name for a table definition."""
        return f"{self.quote}{name.upper() if self.upper_case else name}{self.quote}"

    def quote_name(self, name: str) -> str:
        """Quote a name for a query. All names are quoted, because a new counter can be a reserved word."""
        quote = self.query_quote or self.quote
        return f"{quote}{name.upper() if self.upper_case else name}{quote}"

    def matches(self, name: str, pattern: str) -> str:
        """Return the SQL of the test whether a column matches a regular expression."""
        return self.pattern.format(self.quote_name(name), quote_text(pattern))


_ATHENA_END = """
PARTITIONED BY (`captured_date` string)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
LOCATION 's3://lake/braze/send_analytics/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.captured_date.type' = 'date',
  'projection.captured_date.format' = 'yyyy-MM-dd',
  'projection.captured_date.range' = '2026-01-01,NOW'
)"""

DIALECTS: Mapping[str, Dialect] = {
    "duckdb": Dialect(("BIGINT", "DOUBLE", "VARCHAR"), "regexp_matches({0}, {1})"),
    "bigquery": Dialect(("INT64", "FLOAT64", "STRING"), "REGEXP_CONTAINS({0}, {1})", quote="`"),
    # Unquoted names are upper-case names, so queries need no quotes.
    "snowflake": Dialect(("NUMBER(19, 0)", "FLOAT", "VARCHAR"), "REGEXP_INSTR({0}, {1}) > 0", upper_case=True),
    "redshift": Dialect(("BIGINT", "DOUBLE PRECISION", "VARCHAR(65535)"), "{0} ~ {1}"),
    "athena": Dialect(
        ("bigint", "double", "string"),
        "regexp_like({0}, {1})",
        quote="`",
        query_quote='"',
        table_start="CREATE EXTERNAL TABLE",
        table_end=_ATHENA_END,
        latest_end="\nLOCATION 's3://lake/tables/send_analytics_latest/'\nTBLPROPERTIES ('table_type' = 'ICEBERG')",
    ),
    "clickhouse": Dialect(
        ("Nullable(Int64)", "Nullable(Float64)", "Nullable(String)"),
        "match(ifNull({0}, ''), {1})",
        quote="`",
        table_end="\nENGINE = MergeTree ORDER BY tuple()",
    ),
    "spark": Dialect(
        ("BIGINT", "DOUBLE", "STRING"),
        "{0} RLIKE {1}",
        quote="`",
        table_end="\nUSING json LOCATION 's3a://lake/braze/send_analytics'\nPARTITIONED BY (`captured_date`)",
        latest_end="\nUSING delta",
    ),
    "postgresql": Dialect(("bigint", "double precision", "text"), "{0} ~ {1}"),
}
