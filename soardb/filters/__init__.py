"""Filters: from what a user wrote to the rows that match.

expr.py        the tree, and F("price") < 10 that builds it
json_form.py   the tree as JSON
scan.py        a filter in SQL taken apart, and refused where it is not of the language
parse.py       the tree as SQL, read and written
check.py       as_filter: any spelling, compared with the schema
columns.py     the declared fields of all rows, in memory
column.py, keywords.py    one field of all rows
grown.py, dictionary.py   what a column is made of
evaluate.py    tree and columns to matching rows
elementwise.py tests of single values
leaves.py      one comparison over its column, whatever its type
matched.py     the answer: positions or a mask
sql.py         tree to SQLite, the independent check in tests

schema.py -> [filters] -> the collection
"""

from soardb.filters.check import MAX_STRING_BYTES, as_filter
from soardb.filters.columns import Columns
from soardb.filters.evaluate import Matching, matching
from soardb.filters.expr import MAX_DEPTH, MAX_IN_VALUES, MAX_NODES, Expr, F
from soardb.filters.json_form import from_json, to_json
from soardb.filters.parse import MAX_SQL_LENGTH, to_sql_text

__all__ = [
    "MAX_DEPTH",
    "MAX_IN_VALUES",
    "MAX_NODES",
    "MAX_SQL_LENGTH",
    "MAX_STRING_BYTES",
    "Columns",
    "Expr",
    "F",
    "Matching",
    "as_filter",
    "from_json",
    "matching",
    "to_json",
    "to_sql_text",
]
