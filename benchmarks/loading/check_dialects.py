"""Parses the statements of databases that cannot be installed here, with the dialects of SQLGlot."""

import json

import sqlglot
from page import get_block, get_statement

statements = {
    kind: [get_statement(kind, each) for each in ("table", "latest", "merge")]
    for kind in ("bigquery", "snowflake", "redshift", "athena", "spark")
}
for kind, name in (("snowflake", "Snowflake"), ("redshift", "Redshift")):
    statements[kind].append(get_block(name))
for kind, texts in statements.items():
    dialect = "databricks" if kind == "spark" else kind
    # Athena's statements are parsed one by one, since table definitions have another dialect than queries.
    single = [each for text in texts for each in text.split(";\n\n")] if kind == "athena" else texts
    parsed = [each for text in single for each in sqlglot.parse(text, read=dialect) if each]
    commands = [each.sql()[:40] for each in parsed if each.key == "command"]
    print(
        json.dumps(
            {
                "reader": f"{kind}, parsed only",
                "version": f"SQLGlot {sqlglot.__version__}",
                "statements": len(parsed),
                "not_understood": commands,
            }
        )
    )
