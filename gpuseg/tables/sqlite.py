"""SQLite through ADBC, as data; see `gpuseg.tables.adbc_dialect.Dialect`."""

from __future__ import annotations

from gpuseg.errors import DataError, SettingsError, TableNotFoundError
from gpuseg.tables.adbc_dialect import Dialect, Failure

_BUSY = Failure(None, "the database is locked by another process ({what})", again=True)

SQLITE = Dialect(
    name="SQLite",
    tables="SELECT type, 'main', name FROM main.sqlite_master WHERE type IN ('table', 'view') "
    "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    columns="SELECT name, type FROM pragma_table_info({table}) ORDER BY cid",
    # in brackets, because the driver overlooks what follows a first statement
    view="CREATE TEMP VIEW gpuseg_query AS SELECT * FROM ({bare}\n)",
    after_view="PRAGMA query_only = ON",
    # the type of a column is that of its values, and the driver judges by the first batch
    statement_options={"adbc.sqlite.query.batch_rows": str(10**9)},
    writes=True,
    text="TEXT",
    bystanders="SELECT 'table ' || m.name, 1 FROM main.sqlite_master m, "
    "pragma_foreign_key_list(m.name) f WHERE m.type = 'table' AND lower(f.\"table\") = "
    "lower({table}) AND lower(m.name) <> lower({table})",
    phrases={
        "locked|busy": _BUSY,
        "unable to open|failed to open": Failure(
            TableNotFoundError, "the database cannot be opened ({what})"
        ),
        "readonly": Failure(SettingsError, "the database may not be written to ({what})"),
        "not a database|malformed": Failure(DataError, "this is no SQLite database ({what})"),
        "full": Failure(None, "the disk is full ({what})"),
        "syntax error|no such|incomplete": Failure(SettingsError, "the query does not run: {what}"),
        "Type mismatch": Failure(
            DataError,
            "a column holds values of several types ({what}); cast it in an --input-query",
        ),
    },
)
