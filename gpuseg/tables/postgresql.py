"""PostgreSQL through ADBC, as data; see `gpuseg.tables.adbc_dialect.Dialect`."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from gpuseg.errors import DataError, SettingsError, TableNotFoundError
from gpuseg.tables.adbc_dialect import Dialect, Failure, Travel

MOST_DIGITS = 38  # of Arrow's 128 bits

#: Digits that a double keeps, and that PostgreSQL takes from one.
DOUBLE_DIGITS = 15

_PLAIN = re.compile(
    r"(boolean|smallint|integer|bigint|real|double precision|text|character varying(\(\d+\))?"
    r"|character(\(\d+\))?|bytea|time(\(\d\))? without time zone)(?P<array>\[\])?"
)
_MOMENT = re.compile(r"(date|timestamp(\(\d\))? with(out)? time zone)(?P<array>\[\])?")

# an array of several dimensions, or one that does not start at 1, would arrive as a list
_ODD_ARRAY = "array_ndims({0}) > 1 OR array_lower({0}, 1) <> 1"
_ODD_MOMENTS = " OR 'infinity' = ANY({0}) OR '-infinity' = ANY({0})"


def travel(kind: str) -> Travel:
    """Say how a type travels: as itself, or as text that casts back to it."""
    if found := _PLAIN.fullmatch(kind):
        return Travel("{}", _ODD_ARRAY, "{}::text") if found["array"] else Travel()
    if found := _MOMENT.fullmatch(kind):
        doubt = _ODD_ARRAY + _ODD_MOMENTS if found["array"] else "NOT isfinite({})"
        return Travel("{}", doubt, "{}::text")
    if kind.endswith("[]"):
        return Travel("{}::text[]", _ODD_ARRAY, "{}::text")
    return Travel("{}::text")


def arrived(column: pa.ChunkedArray, kind: str, name: str) -> pa.ChunkedArray:
    """Make texts of a numeric column into decimals, which have no text's ambiguities.

    Raises
    ------
    DataError
        If neither a decimal nor a double holds all values.
    """
    declared = re.fullmatch(r"numeric(?:\((\d+),(-?\d+)\))?", kind)
    if declared is None:
        return column
    finite = pc.match_substring_regex(column, "[0-9]")
    digits = pc.replace_substring_regex(pc.if_else(finite, column, None), "[-.]|^-?0(\\.0*)?", "")
    fraction = pc.replace_substring_regex(pc.if_else(finite, column, None), r"^[^.]*\.?", "")
    whole = pc.replace_substring_regex(pc.if_else(finite, column, None), r"^-?0*|\..*$", "")
    scale = pc.max(pc.utf8_length(fraction)).as_py() or 0
    n_digits = scale + (pc.max(pc.utf8_length(whole)).as_py() or 0)
    if pc.all(finite).as_py() is not False and n_digits <= MOST_DIGITS:
        precision, fixed = (int(part or 0) for part in declared.groups())
        # the same type whatever the rows are, where the column says so
        if 0 < precision <= MOST_DIGITS and scale <= fixed <= precision:
            return column.cast(pa.decimal128(precision, fixed))
        return column.cast(pa.decimal128(MOST_DIGITS, scale))
    if (pc.max(pc.utf8_length(digits)).as_py() or 0) <= DOUBLE_DIGITS:
        return column.cast(pa.float64())
    raise DataError(
        f"column '{name}' is numeric with {n_digits} digits or with NaN beside long numbers, which "
        "neither a decimal of 38 digits nor a double holds; give an --input-query that casts it"
    )


_TABLES = """
SELECT CASE WHEN c.relkind IN ('r', 'p') THEN 'table' ELSE 'view' END, n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_(toast|temp)'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY 2, 3"""

#: The table, by names that are compared and never parsed.
_TABLE = (
    "(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = {schema} AND c.relname = {table})"
)

_COLUMNS = f"""
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
WHERE a.attrelid = COALESCE({_TABLE}, to_regclass('pg_temp.' || quote_ident({{table}})))
  AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""

_PERMISSION = f"""
SELECT CASE
  WHEN {{append}} AND NOT has_table_privilege(o.oid, 'INSERT') THEN
    'may not insert into it; the owner can GRANT INSERT'
  WHEN NOT {{append}} AND NOT pg_has_role(o.relowner, 'USAGE') THEN
    'may not replace it, because it belongs to ' || quote_ident(pg_get_userbyid(o.relowner))
  WHEN o.relkind = 'p' AND NOT {{append}} THEN
    'may not replace it, because it has partitions; append to it, or name another table'
  WHEN EXISTS (SELECT FROM pg_inherits i WHERE o.oid IN (i.inhparent, i.inhrelid))
    AND NOT {{append}} THEN
    'may not replace it, because it is part of a partitioned or inherited table'
END FROM pg_class o WHERE o.oid = {_TABLE}"""

#: What somebody has made for the table, and what nothing but the table itself can keep.
_BYSTANDERS = f"""
WITH old AS (SELECT * FROM pg_class WHERE oid = {_TABLE})
SELECT DISTINCT 'view ' || r.ev_class::regclass::text, 0 FROM old JOIN pg_depend d
  ON d.refclassid = 'pg_class'::regclass AND d.refobjid = old.oid
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
WHERE r.ev_class <> old.oid
UNION ALL SELECT 'foreign key of ' || c.conrelid::regclass::text, 1
FROM old JOIN pg_constraint c ON c.contype = 'f' AND c.confrelid = old.oid
WHERE c.conrelid <> old.oid
UNION ALL SELECT 'generated column ' || quote_ident(a.attname), 1
FROM old JOIN pg_attribute a ON a.attrelid = old.oid
WHERE a.attidentity <> '' OR a.attgenerated <> ''
UNION ALL SELECT 'index ' || i.indexrelid::regclass::text, 0
FROM old JOIN pg_index i ON i.indrelid = old.oid
UNION ALL SELECT 'constraint ' || quote_ident(c.conname), 0
FROM old JOIN pg_constraint c ON c.conrelid = old.oid WHERE c.contype IN ('c', 'f')
UNION ALL SELECT 'trigger ' || quote_ident(t.tgname), 0
FROM old JOIN pg_trigger t ON t.tgrelid = old.oid WHERE NOT t.tgisinternal
UNION ALL SELECT 'rule ' || quote_ident(r.rulename), 0
FROM old JOIN pg_rewrite r ON r.ev_class = old.oid
UNION ALL SELECT 'default, duty or privilege of column ' || quote_ident(a.attname), 0
FROM old JOIN pg_attribute a ON a.attrelid = old.oid AND a.attnum > 0
WHERE a.atthasdef OR a.attnotnull OR a.attacl IS NOT NULL
UNION ALL SELECT 'row security', 0 FROM old WHERE relrowsecurity
UNION ALL SELECT 'publication', 0 FROM old JOIN pg_publication_rel p ON p.prrelid = old.oid
UNION ALL SELECT 'statistics ' || quote_ident(s.stxname), 0
FROM old JOIN pg_statistic_ext s ON s.stxrelid = old.oid"""

_HEIRS = f"""
WITH old AS (SELECT * FROM pg_class WHERE oid = {_TABLE})
SELECT format('COMMENT ON TABLE %s IS %L', {{heir}}::text, obj_description(oid, 'pg_class'))
FROM old WHERE obj_description(oid, 'pg_class') IS NOT NULL
UNION ALL
SELECT format('COMMENT ON COLUMN %s.%I IS %L', {{heir}}::text, a.attname, d.description)
FROM old JOIN pg_attribute a ON a.attrelid = old.oid
JOIN pg_description d ON d.objoid = old.oid AND d.objsubid = a.attnum
  AND d.classoid = 'pg_class'::regclass
WHERE a.attname IN (SELECT attname FROM pg_attribute WHERE attrelid = {{heir}}::regclass)
UNION ALL
SELECT format('GRANT %s ON %s TO %s%s', a.privilege_type, {{heir}}::text,
  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM old CROSS JOIN LATERAL aclexplode(old.relacl) a WHERE a.grantee <> old.relowner
UNION ALL
SELECT format('ALTER TABLE %s OWNER TO %I', {{heir}}::text, pg_get_userbyid(relowner))
FROM old WHERE pg_get_userbyid(relowner) <> current_user"""

#: A time-out that the address or the role sets stands.
_LOCK_TIMEOUT = (
    "SELECT set_config('lock_timeout', '30s', false) WHERE current_setting('lock_timeout') = '0'"
)

_LOST = Failure(None, "the connection was lost ({what})", again=True)
_NOT_FITTING = Failure(DataError, "a value does not fit the type of its column")
_QUERY = Failure(SettingsError, "the input query does not run: {what} (one SELECT was expected)")
_READ_ONLY = Failure(SettingsError, "the server, or a query, may only read ({what})")
_DENIED = Failure(SettingsError, "{what}; ask the owner for the privilege")
_LOGIN = Failure(
    SettingsError,
    "{what}; correct the user in the address, and the password there or in PGPASSWORD",
)

POSTGRESQL = Dialect(
    name="PostgreSQL",
    tables=_TABLES,
    columns=_COLUMNS,
    opening=(
        "SET application_name = 'gpuseg'",
        "SET TIME ZONE 'UTC'",
        "SET datestyle = 'ISO'",
        "SET intervalstyle = 'postgres'",
        _LOCK_TIMEOUT,
        # whoever waited for a lock must see what was added meanwhile
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
    ),
    # all statements of a read see the same rows
    reading=("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",),
    view="CREATE TEMP VIEW gpuseg_query AS {query}",
    after_view="SET TRANSACTION READ ONLY",
    estimate="EXPLAIN (FORMAT JSON) {query}",
    timeouts={
        "connect_timeout": "10",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
    },
    small_options={"adbc.postgresql.use_copy": "false"},  # EXPLAIN cannot be copied
    travel=travel,
    arrived=arrived,
    writes=True,
    schema="SELECT 1 FROM pg_namespace WHERE nspname = {schema}",
    insert="CAST({column} AS {kind})",
    type_exists="SELECT count(*) FROM pg_type WHERE format_type(oid, NULL) = "
    "regexp_replace({kind}, '\\(\\d+(,-?\\d+)?\\)', '')",
    text="text",
    # a lock of our own, because LOCK TABLE takes privileges that an INSERT does not
    alone="SELECT pg_advisory_xact_lock(hashtext('gpuseg'), "
    "hashtext(lower({schema} || '.' || {table})))::text",
    most_name_bytes=63,
    one_case=False,
    permission=_PERMISSION,
    bystanders=_BYSTANDERS,
    heirs=_HEIRS,
    row_hash="hashtextextended(gpuseg_row::text, 0)",
    readable=f"SELECT 1 WHERE has_table_privilege({_TABLE}, 'SELECT')",
    # https://www.postgresql.org/docs/current/errcodes-appendix.html
    failures={
        "08": _LOST,
        "57P01": _LOST,
        "57P02": _LOST,
        "57P03": Failure(None, "the server is starting or stopping ({what})", again=True),
        "53300": Failure(None, "the server takes no more connections ({what})", again=True),
        "53100": Failure(None, "the server's disk is full ({what})"),
        "53": Failure(None, "the server is short of something ({what})"),
        "55P03": Failure(None, "the table is locked by another session ({what})"),
        "57014": Failure(None, "the server cancelled the statement ({what})"),
        "40": Failure(None, "another session changed the same table ({what})"),
        "42P07": Failure(None, "another session made the same table meanwhile ({what})"),
        "23505": Failure(None, "another session made the same meanwhile, or a value is twice"),
        "42501": _DENIED,
        "28": _LOGIN,
        "3D000": Failure(TableNotFoundError, "{what}"),
        "25006": _READ_ONLY,
        "22021": Failure(DataError, "a text holds a null character, which PostgreSQL cannot"),
        "22": _NOT_FITTING,
        "23": Failure(DataError, "a row breaks a constraint of the table ({what})"),
        "42": _QUERY,
        "0A": _QUERY,
    },
    # rows that stop coming bring no SQLSTATE with them
    phrases={
        "input syntax|out of range|by zero|too (long|large)|overflow": _NOT_FITTING,
        "read-only transaction": _READ_ONLY,
        "password|authentication|role .* does not exist|no pg_hba": _LOGIN,
        "database .* does not exist": Failure(TableNotFoundError, "{what}"),
        "permission denied": _DENIED,
        "too many|remaining connection": Failure(
            None, "the server takes no more connections ({what})", again=True
        ),
        "invalid|URI|unrecognized": Failure(SettingsError, "the address is malformed: {what}"),
        "translate host": Failure(None, "the server is not known ({what})", again=True),
        "refused|Connection|connection|starting|shutting|timeout|EOF|SSL|socket|copy data": _LOST,
    },
)
