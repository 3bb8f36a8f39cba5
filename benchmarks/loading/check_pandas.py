"""pandas: all rows of the parts, with stable types."""

import pandas as pd
from page import compare_rows, get_block

found: dict[str, pd.DataFrame] = {}
exec(get_block("pandas"), found)
rows = found["rows"].astype(object).where(found["rows"].notna(), None).to_dict("records")
compare_rows("pandas", pd.__version__, rows, "rows.ndjson")
