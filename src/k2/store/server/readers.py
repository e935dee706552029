"""What a read-only account may say: an allow-list over the statement's syntax tree, as the engine's own parser sees it.

The engine's `readonly` refuses writes and most table functions, but lets through the scalar function `file()`, INTO
OUTFILE, KILL QUERY and DESCRIBE of a file, and its database `default` shows the file system as tables. So only what is
listed here is passed on; a kind of node that is not known is refused.
"""

import re
import threading
from collections import OrderedDict

from k2.store import StoreError
from k2.store.as_of import SETTING as AS_OF
from k2.store.embedded import Connection
from k2.store.server.connections import Connections
from k2.store.server.request import Ask
from k2.store.server.statement import Statement
from k2.store.server.status import refusal

_NODE_WORDS = """
    SelectWithUnionQuery SelectIntersectExceptQuery SelectQuery ExpressionList Identifier TableIdentifier Function
    Literal Subquery TablesInSelectQuery TablesInSelectQueryElement TableExpression TableJoin ArrayJoin Asterisk
    QualifiedAsterisk ColumnsListMatcher ColumnsRegexpMatcher QualifiedColumnsListMatcher QualifiedColumnsRegexpMatcher
    ColumnsTransformerList ColumnsApplyTransformer ColumnsExceptTransformer ColumnsReplaceTransformer
    ColumnsReplaceTransformerReplacement ColumnsReplaceTransformer::Replacement WindowDefinition WindowListElement
    OrderByElement InterpolateElement Collation SampleRatio WithElement DataType Set Explain DescribeQuery ShowTables
    ShowColumns ShowIndexes ShowFunctions ShowCreateTableQuery ShowCreateViewQuery ShowCreateDatabaseQuery
    ExistsTableQuery ExistsViewQuery ExistsDatabaseQuery UseQuery
"""
_TABLE_FUNCTION_WORDS = """
    numbers numbers_mt zeros zeros_mt primes generateseries generate_series generaterandom values sqlstandardvalues
    null view format
"""
# Scalar functions that reach out of the store, or tell what only its owner should know.
_SCALAR_WORDS = """
    file eval catboostevaluate hascolumnintable getserversetting getmacro getclienthttpheader getserverport serveruuid
    logtrace sleep sleepeachrow addresstosymbol addresstoline addresstolinewithinlines demangle fuzzquery
    currentrequesturl generateserialid defaultprofiles currentprofiles enabledprofiles filesystemavailable
    filesystemcapacity filesystemunreserved hostname fullhostname
"""
_SYSTEM_WORDS = """
    one numbers numbers_mt zeros zeros_mt settings tables columns databases functions data_type_families formats
    table_functions table_engines time_zones build_options metrics events asynchronous_metrics parts parts_columns
    keywords completions collations aggregate_function_combinators data_skipping_indices contributors licenses
    iceberg_history
    merge_tree_settings merges mutations documentation warnings errors projections codecs
"""
_NODES = frozenset(_NODE_WORDS.split())
_TABLE_FUNCTIONS = frozenset(_TABLE_FUNCTION_WORDS.split())
_SCALARS = frozenset(_SCALAR_WORDS.split())
_SYSTEM_TABLES = frozenset(_SYSTEM_WORDS.split())
_DATABASES = frozenset(("k2", "cold", "information_schema", "INFORMATION_SCHEMA", "system"))
_NAMING = frozenset(("ShowCreateTableQuery", "ShowCreateViewQuery", "ExistsTableQuery", "ExistsViewQuery", "UseQuery"))
_ALSO_SCALAR = frozenset(("format", "merge", "url"))
_SETTING = re.compile(rb"([A-Za-z_]\w*)\s*=\s*(?:'([^'\\]*)'|([\w.+-]+))")
_SETTINGS = re.compile(rb"\s*SETTINGS\s+(%b(?:\s*,\s*%b)*)\s*" % ((_SETTING.pattern,) * 2), re.IGNORECASE)
_CACHE = 1024
_SMALL = 4096


class Readers:
    """Decides whether a read-only account may run a statement. Thread-safe."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._parser: Connection | None = None
        self._refused: frozenset[str] = _SCALARS
        self._guard = threading.Lock()
        self._allowed: OrderedDict[tuple[bytes, str, bool], None] = OrderedDict()

    def allow(self, statement: Statement, ask: Ask) -> None:
        """Return, or raise StoreError: 164 for what would write, 497 for what may not be reached, 62 for no SQL."""
        if statement.kind.startswith("insert"):
            raise refusal(164, "READONLY", "Cannot execute query in readonly mode: INSERT")
        if ask.database not in _DATABASES:
            raise _denied(f"the database {ask.database}")
        databases = _DATABASES - {"k2"} if AS_OF in ask.settings else _DATABASES
        key = (statement.head, ask.database, AS_OF in ask.settings)
        with self._guard:
            if key in self._allowed and not ask.params:
                self._allowed.move_to_end(key)
                return
            self._judge(self._tree(statement.head, ask), ask.database, databases)
            if not ask.params and len(statement.head) <= _SMALL:
                self._allowed[key] = None
                if len(self._allowed) > _CACHE:
                    self._allowed.popitem(last=False)

    def close(self) -> None:
        """Release the connection that parses."""
        with self._guard:
            if self._parser is not None:
                self._parser.close()
                self._parser = None

    def _tree(self, sql: bytes, ask: Ask) -> list[tuple[int, str, str]]:
        """The syntax tree in preorder: depth, kind, and what the node says of itself. Parameters are filled in."""
        if self._parser is None:
            self._parser = self._connections.bare("system")
            names = self._parser.run("SELECT lower(name) FROM system.table_functions", "TSVRaw").body.decode().split()
            self._refused = (_SCALARS | frozenset(names)) - _TABLE_FUNCTIONS - _ALSO_SCALAR
            self._parser.set({"readonly": "1"})
        text = self._parser.run(b"EXPLAIN AST " + sql, "TSVRaw", ask.params).body.decode("utf-8", "replace")
        nodes = []
        for line in text.splitlines():
            kind, _, rest = line.strip().partition(" ")
            if kind:
                nodes.append((len(line) - len(line.lstrip()), kind, rest))
        return nodes

    def _judge(self, nodes: list[tuple[int, str, str]], database: str, databases: frozenset[str]) -> None:
        above = ""
        for _, kind, rest in nodes:
            if kind not in _NODES:
                raise _denied(f"this kind of statement ({kind})")
            name = rest.split(" (", 1)[0]
            if kind == "Function":
                self._judge_function(name, as_table=above == "TableExpression")
            elif kind == "TableIdentifier":
                _judge_table(name, database, databases)
            elif kind == "Identifier":
                first, _, second = name.partition(".")
                if (
                    first == "default"
                    or (first == "k2" and second and "k2" not in databases)
                    or (first == "system" and second and second not in _SYSTEM_TABLES)
                ):
                    raise _denied(name)
            elif kind in _NAMING and rest:
                _judge_named(name.split(), database, databases)
            above = kind

    def _judge_function(self, name: str, as_table: bool) -> None:
        lower = name.lower()
        if as_table and lower not in _TABLE_FUNCTIONS and not lower.startswith("k2."):
            raise _denied(f"the table function {name}")
        if lower in self._refused or lower.startswith("ai"):
            raise _denied(f"the function {name}")


def lifted(ask: Ask, statement: Statement) -> tuple[Ask, Statement]:
    """Settings behind the FORMAT clause as settings of the request: of those, a reader may change some."""
    found = _SETTINGS.fullmatch(statement.tail)
    if not found:
        return ask, statement
    named = {name.decode(): (text or plain).decode() for name, text, plain in _SETTING.findall(found[1])}
    return ask._replace(settings={**ask.settings, **named}), statement._replace(tail=b"")


def _judge_table(name: str, database: str, databases: frozenset[str]) -> None:
    first, dot, second = name.partition(".")
    where, table = (first, second) if dot else (database, first)
    if where in _DATABASES - databases:
        raise _denied(
            f"the table {name} as of another time: hot tables know only today; cold.trades and its like know their past"
        )
    if where not in _DATABASES or (where == "system" and table not in _SYSTEM_TABLES):
        raise _denied(f"the table {name}")


def _judge_named(names: list[str], database: str, databases: frozenset[str]) -> None:
    if len(names) == 1 and names[0] not in _DATABASES:
        _judge_table(names[0], database, databases)
    elif len(names) == 2:
        _judge_table(f"{names[0]}.{names[1]}", database, databases)


def _denied(what: str) -> StoreError:
    return refusal(497, "ACCESS_DENIED", f"Not enough privileges: a read-only user may not use {what}")
