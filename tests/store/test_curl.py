"""curl against a real store process: formats, packing, accounts and errors, as people type them."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from tests.store.conftest import READER_PASSWORD, StoreProcess

pytestmark = pytest.mark.skipif(
    not shutil.which("curl"), reason="curl was NOT tested, for it is not there: `sudo apt-get install curl`"
)


class Curl:
    """Runs curl in a folder of its own; the store's address stands in front of every path."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def __call__(self, path: str, *arguments: str, code: int = 0) -> bytes:
        command = ["curl", "--silent", "--show-error", "--noproxy", "*", *arguments, self.url + path]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout


@pytest.fixture
def curl(store: StoreProcess, tmp_path: Path) -> Curl:
    return Curl(store.url, tmp_path)


def test_alive(curl: Curl) -> None:
    assert curl("/ping") == b"Ok.\n"
    assert curl("/?query=SELECT%201") == b"1\n"
    assert curl("/", "--data-binary", "SELECT 1") == b"1\n"
    assert b"X-ClickHouse-Format: TabSeparated" in curl("/?query=SELECT%201", "--head")


FORMATS = {
    "TabSeparatedWithNames": b"n\tt\n0\ta\n",
    "CSVWithNames": b'"n","t"\n0,"a"\n',
    "JSONEachRow": b'{"n":0,"t":"a"}\n',
    "Vertical": b"Row 1:\n\xe2\x94\x80\xe2\x94\x80",
    "PrettyCompact": b"n",
    "Markdown": b"| n | t |",
    "XML": b"<?xml",
    "Values": b"(0,'a')",
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_text(curl: Curl, name: str) -> None:
    body = curl("/", "--data-binary", f"SELECT toUInt8(0) AS n, 'a' AS t FORMAT {name}")
    assert FORMATS[name] in body


def test_formats_of_columns(curl: Curl) -> None:
    ask = "SELECT number AS n, toDecimal128('1.5', 18) AS price FROM numbers(3)"
    curl("/?default_format=Parquet", "--data-binary", ask, "--output", "a.parquet")
    assert (
        pq.read_table(curl.folder / "a.parquet")["price"].to_pylist()[0]
        == pa.scalar("1.5").cast(pa.decimal128(38, 18)).as_py()
    )
    stream = curl("/", "-H", "X-ClickHouse-Format: ArrowStream", "--data-binary", ask)
    assert pa.ipc.open_stream(stream).read_all()["n"].to_pylist() == [0, 1, 2]


def test_packed_answers(curl: Curl) -> None:
    ask = "SELECT repeat('x', 100) FROM numbers(1000)"
    plain = curl("/", "--data-binary", ask)
    packed = curl("/?enable_http_compression=1", "-H", "Accept-Encoding: gzip", "--data-binary", ask)
    assert gzip.decompress(packed) == plain
    packed = curl("/?enable_http_compression=1", "-H", "Accept-Encoding: zstd", "--data-binary", ask)
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == plain
    assert curl("/?enable_http_compression=1", "--compressed", "--data-binary", ask) == plain


def test_inserts_from_files_and_pipes(curl: Curl, table: str) -> None:
    curl("/", "--data-binary", f"CREATE TABLE {table} (id UInt32, t String) ENGINE = MergeTree ORDER BY id")
    (curl.folder / "rows.csv").write_text('1,"a"\n2,"b,c"\n')
    insert = f"/?query=INSERT%20INTO%20{table}%20FORMAT%20"
    curl(f"{insert}CSV", "--data-binary", "@rows.csv")
    (curl.folder / "rows.json.gz").write_bytes(gzip.compress(b'{"id":3,"t":"d"}\n'))
    curl(f"{insert}JSONEachRow", "-H", "Content-Encoding: gzip", "--data-binary", "@rows.json.gz")
    (curl.folder / "rows.tsv").write_text("4\te\n")
    curl(f"{insert}TSV", "-H", "Transfer-Encoding: chunked", "--data-binary", "@rows.tsv")
    rows = curl("/", "--data-binary", f"SELECT groupArray((id, t)) FROM (SELECT * FROM {table} ORDER BY id)")
    assert rows == b"[(1,'a'),(2,'b,c'),(3,'d'),(4,'e')]\n"


def test_parameters(curl: Curl) -> None:
    ask = ["--get", "--data-urlencode", "query=SELECT {who:String}, {ids:Array(UInt8)}"]
    assert curl("/", *ask, "--data-urlencode", "param_who=o'neil", "-d", "param_ids=[1,2]") == b"o\\'neil\t[1,2]\n"


def test_accounts(curl: Curl) -> None:
    reader = f"reader:{READER_PASSWORD}"
    assert curl("/", "--user", reader, "--data-binary", "SELECT currentUser() != ''") == b"1\n"
    headers = ["-H", "X-ClickHouse-User: reader", "-H", f"X-ClickHouse-Key: {READER_PASSWORD}"]
    assert curl("/", *headers, "--data-binary", "SELECT count() >= 0 FROM silver_trades") == b"1\n"
    assert b"AUTHENTICATION_FAILED" in curl("/", "--user", "reader:wrong", "--data-binary", "SELECT 1")
    assert b"READONLY" in curl("/", "--user", reader, "--data-binary", "INSERT INTO k2.silver_base VALUES (1)")
    assert b"ACCESS_DENIED" in curl("/", "--user", reader, "--data-binary", "SELECT file('/etc/passwd')")


def test_errors_have_a_status_and_fail_for_scripts(curl: Curl) -> None:
    told = curl("/", "--data-binary", "SELECT foo", "-w", " %{http_code} %{header_json}")
    text, _, rest = told.decode().partition(" 404 ")
    assert text.startswith("Code: 47. DB::Exception")
    assert json.loads(rest)["x-clickhouse-exception-code"] == ["47"]
    curl("/", "--fail", "--data-binary", "SELECT foo", code=22)
    late = "SELECT number, throwIf(number = 900000) FROM numbers(1000000)"
    curl("/", "--data-binary", late, "--output", "late.tsv", code=18)  # the answer was cut: never taken for whole
