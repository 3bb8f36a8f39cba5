"""Spark: the table over gzip parts and the latest view; and that Spark cannot read zstd parts."""

import json
import logging
import tempfile
from pathlib import Path

from page import compare_rows, get_block, get_statement
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

with tempfile.TemporaryDirectory() as folder:
    builder = SparkSession.builder.master("local[1]").config("spark.sql.warehouse.dir", folder)
    builder = builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "1")
    spark = builder.config("spark.sql.legacy.createHiveTableByDefault", "false").getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    logging.disable()
    where = f"LOCATION '{Path('gzip').absolute()}/send_analytics'"
    table = get_statement("spark", "table").replace("LOCATION 's3a://lake/braze/send_analytics'", where)
    spark.sql(table.rstrip().rstrip(";"))
    spark.sql(get_block("Spark").rstrip().rstrip(";"))
    spark.sql(get_statement("spark", "latest").rstrip().rstrip(";"))
    rows = map(json.loads, spark.sql("SELECT * FROM send_analytics_latest").toJSON().collect())
    compare_rows("Spark", spark.version, rows)
    try:
        count = spark.read.json("harvest/send_analytics").count()
        print(json.dumps({"reader": "Spark, zstd", "version": spark.version, "rows": count, "equal": None}))
    except (PySparkException, Exception) as error:  # noqa: BLE001 - the error is the result
        found = "native zStandard library not available" in str(error)
        print(json.dumps({"reader": "Spark, zstd", "version": spark.version, "rows": 0, "equal": not found}))
    spark.stop()
