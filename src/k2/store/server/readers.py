"""What a read-only account may say: an allow-list over the statement's syntax tree, as the engine's own parser sees it.

The engine's `readonly` refuses writes and most table functions, but lets through the scalar function `file()`, INTO
OUTFILE, KILL QUERY and DESCRIBE of a file, and its database `default` shows the file system as tables. So only what is
listed here, and in `functions.txt`, is passed on; a kind of node or a function that is not known is refused.

Its `readonly` does not hold inside of subqueries, whose SETTINGS clauses may say anything; and where a table function
takes the structure of a table as text, defaults in that text are evaluated. So neither is passed on. Nor is what the
tree does not show: what APPLY is to call, and the conditions of SHOW.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from k2.store import StoreError
from k2.store.as_of import SETTING as AS_OF
from k2.store.embedded import Connection
from k2.store.server.connections import Connections
from k2.store.server.externals import External
from k2.store.server.functions import aliases_of_listed, may_call, only_columns
from k2.store.server.request import Ask
from k2.store.server.statement import Statement
from k2.store.server.status import refusal

_NODE_WORDS = """
    SelectWithUnionQuery SelectIntersectExceptQuery SelectQuery ExpressionList Identifier TableIdentifier Function
    Literal Subquery TablesInSelectQuery TablesInSelectQueryElement TableExpression TableJoin ArrayJoin Asterisk
    QualifiedAsterisk ColumnsListMatcher ColumnsRegexpMatcher QualifiedColumnsListMatcher QualifiedColumnsRegexpMatcher
    ColumnsTransformerList ColumnsExceptTransformer ColumnsReplaceTransformer
    ColumnsReplaceTransformerReplacement ColumnsReplaceTransformer::Replacement WindowDefinition WindowListElement
    OrderByElement InterpolateElement Collation SampleRatio WithElement DataType Explain DescribeQuery ShowTables
    ShowColumns ShowIndexes ShowFunctions ShowCreateTableQuery ShowCreateViewQuery ShowCreateDatabaseQuery
    ExistsTableQuery ExistsViewQuery ExistsDatabaseQuery UseQuery
"""
_TABLE_FUNCTION_WORDS = """
    numbers numbers_mt zeros zeros_mt primes generateseries generate_series values sqlstandardvalues view
"""
_SYSTEM_WORDS = """
    one numbers numbers_mt zeros zeros_mt settings tables columns databases functions data_type_families formats
    table_functions table_engines time_zones build_options metrics events asynchronous_metrics parts parts_columns
    keywords completions collations aggregate_function_combinators data_skipping_indices contributors licenses
    iceberg_history
    merge_tree_settings merges documentation warnings projections codecs
"""
_NODES = frozenset(_NODE_WORDS.split())
_TABLE_FUNCTIONS = frozenset(_TABLE_FUNCTION_WORDS.split())
_SYSTEM_TABLES = frozenset(_SYSTEM_WORDS.split())
_DATABASES = frozenset(("k2", "cold", "information_schema", "INFORMATION_SCHEMA", "system"))
_STRUCTURED = frozenset(("values", "sqlstandardvalues"))  # their first argument may be the structure of a table
_NAMING = frozenset(("ShowCreateTableQuery", "ShowCreateViewQuery", "ExistsTableQuery", "ExistsViewQuery", "UseQuery"))
_SETTING = re.compile(rb"([A-Za-z_]\w*)\s*=\s*(?:'([^'\\]*)'|([\w.+-]+))")
_SETTINGS = re.compile(rb"\s*SETTINGS\s+(%b(?:\s*,\s*%b)*)\s*" % ((_SETTING.pattern,) * 2), re.IGNORECASE)
_NAME = rb"(?:\w+|`[^`\\]+`)"
_SHOW = re.compile(
    rb"\s*SHOW\s+(?:FULL\s+|EXTENDED\s+|TEMPORARY\s+|CHANGED\s+)*"
    rb"(?:TABLES|DATABASES|COLUMNS|FIELDS|INDEX|INDEXES|INDICES|KEYS|FUNCTIONS|SETTINGS)"
    rb"(?:\s+(?:FROM|IN)\s+%b(?:\.%b)?)*"
    rb"(?:\s+(?:NOT\s+)?I?LIKE\s+'[^'\\]*')?(?:\s+LIMIT\s+\d+)?\s*" % (_NAME, _NAME),
    re.IGNORECASE,
)
_SHOWING = frozenset(("ShowTables", "ShowColumns", "ShowIndexes", "ShowFunctions"))
_FORMAT = re.compile(r"\w+\Z", re.ASCII)
_CACHE = 1024
_SMALL = 4096


class _Node(NamedTuple):
    """A node of the syntax tree: how deep, what kind, and what it says of itself."""

    depth: int
    kind: str
    text: str


class Readers:
    """Decides whether a read-only account may run a statement. Thread-safe."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._parser: Connection | None = None
        self._aliases: frozenset[str] = frozenset()
        self._types: frozenset[str] = frozenset()
        self._guard = threading.Lock()
        self._allowed: OrderedDict[tuple[bytes, str, bool], None] = OrderedDict()

    def allow(self, statement: Statement, ask: Ask, files: Sequence[External] = ()) -> None:
        """Return, or raise StoreError: 164 for what would write, 497 for what may not be reached, 62 for no SQL.

        `files` are tables that came with the request.
        """
        if statement.kind.startswith("insert"):
            raise refusal(164, "READONLY", "Cannot execute query in readonly mode: INSERT")
        if ask.database not in _DATABASES:
            raise _denied(f"the database {ask.database}")
        databases = _DATABASES - {"k2"} if AS_OF in ask.settings else _DATABASES
        key = (statement.head, ask.database, AS_OF in ask.settings)
        with self._guard:
            for file in files:
                self._judge_file(file)
            if key in self._allowed and not ask.params:
                self._allowed.move_to_end(key)
                return
            nodes = self._tree(statement.head, ask)
            self._judge(nodes, ask.database, databases)
            if any(node.kind in _SHOWING for node in nodes) and not _SHOW.fullmatch(statement.head):
                raise _denied("SHOW of this, or with more than FROM, LIKE and LIMIT")
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

    def _open(self) -> Connection:
        if self._parser is None:
            parser = self._connections.bare("system")
            lines = parser.run("SELECT name, alias_to FROM system.functions WHERE alias_to != ''", "TSVRaw").body
            pairs = [tuple(line.split("\t")) for line in lines.decode().splitlines()]
            self._aliases = aliases_of_listed((alias, name) for alias, name in pairs)
            families = parser.run("SELECT lower(name) FROM system.data_type_families", "TSVRaw").body
            self._types = frozenset(families.decode().split())
            parser.set({"readonly": "1"})
            self._parser = parser
        return self._parser

    def _tree(self, sql: bytes, ask: Ask) -> list[_Node]:
        """The syntax tree in preorder. Parameters are filled in."""
        text = self._open().run(b"EXPLAIN AST " + sql, "TSVRaw", ask.params).body.decode("utf-8", "replace")
        nodes = []
        for line in text.splitlines():
            kind, _, rest = line.strip().partition(" ")
            if kind:
                nodes.append(_Node(len(line) - len(line.lstrip()), kind, rest))
        return nodes

    def _judge(self, nodes: list[_Node], database: str, databases: frozenset[str]) -> None:
        above = _Node(-1, "", "")
        for at, node in enumerate(nodes):
            name = node.text.split(" (", 1)[0]
            if node.kind == "Set" and above.kind == "Explain":
                pass  # what EXPLAIN is to show
            elif node.kind not in _NODES:
                what = "a SETTINGS clause here" if node.kind == "Set" else f"this kind of statement ({node.kind})"
                raise _denied(what)
            elif node.kind == "Function":
                self._judge_function(name, as_table=above.kind == "TableExpression", arguments=nodes[at + 1 : at + 3])
            elif node.kind == "TableIdentifier":
                _judge_table(name, database, databases)
            elif node.kind == "Identifier":
                first, _, second = name.partition(".")
                if (
                    first == "default"
                    or (first == "k2" and second and "k2" not in databases)
                    or (first == "system" and second and second not in _SYSTEM_TABLES)
                ):
                    raise _denied(name)
            elif node.kind == "UseQuery" and name == "system":
                raise _denied("the database system for a whole session")
            elif node.kind in _NAMING and node.text:
                _judge_named(name.split(), database, databases)
            above = node

    def _judge_function(self, name: str, as_table: bool, arguments: list[_Node]) -> None:
        lower = name.lower()
        if as_table and lower not in _TABLE_FUNCTIONS and not lower.startswith("k2."):
            raise _denied(f"the table function {name}")
        # The right side of IN is a table function as well, and looks like any other.
        if not as_table and lower not in _TABLE_FUNCTIONS and not may_call(name, self._aliases):
            raise _denied(f"the function {name}")
        if lower in _STRUCTURED and len(arguments) == 2 and arguments[1].kind == "Literal":
            text = arguments[1].text.replace("\\\\", "\\").replace("\\'", "'")
            if "(" in text and not only_columns(text[1:-1], self._types):
                raise _denied(f"this structure of a table in {name}: {text[:80]}")

    def _judge_file(self, file: External) -> None:
        self._open()
        if not only_columns(file.structure, self._types):
            raise _denied(f"this structure of the table {file.name}: write columns with their types and nothing else")
        if not _FORMAT.match(file.format):
            raise refusal(73, "UNKNOWN_FORMAT", f"Unknown format {file.format}")


def lifted(ask: Ask, statement: Statement) -> tuple[Ask, Statement]:
    """Settings behind the FORMAT clause as settings of the request: of those, a reader may change some. Raises
    StoreError for whatever else stands there."""
    if not statement.tail.strip():
        return ask, statement._replace(tail=b"")
    found = _SETTINGS.fullmatch(statement.tail)
    if not found:
        raise refusal(
            164, "READONLY", "Behind FORMAT a read-only user may write SETTINGS name = value, ... and no more"
        )
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
