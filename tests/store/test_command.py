"""`k2 sql`: what people type, and what they get in a pipe and in a terminal."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE_S
from tests.store.conftest import StoreProcess


def sql(store_port: int, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "K2_STORE_PORT": str(store_port)}
    command = [sys.executable, "-m", "k2", "sql", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=environ, timeout=60, check=False)


def test_a_pipe_gets_tab_separated_values_with_names(store: StoreProcess) -> None:
    assert sql(store.port, "SELECT 1 AS one, 'x\ty' AS text").stdout == "one\ttext\n1\tx\\ty\n"


def test_formats(store: StoreProcess, tmp_path: Path) -> None:
    assert json.loads(sql(store.port, "SELECT 1 AS one", "--json").stdout) == {"one": 1}
    assert sql(store.port, "SELECT 1 AS one", "--format", "CSVWithNames").stdout == '"one"\n1\n'
    file = tmp_path / "query.sql"
    file.write_text("SELECT 2 AS two;\n")
    assert sql(store.port, "-f", str(file)).stdout == "two\n2\n"
    assert sql(store.port, stdin="SELECT 3 AS three").stdout == "three\n3\n"
    assert sql(store.port, "-f", "-", stdin="SELECT 4 AS four").stdout == "four\n4\n"


def test_names_are_of_k2s_own_database(store: StoreProcess) -> None:
    assert sql(store.port, "SELECT currentDatabase() AS here").stdout == "here\nk2\n"


def test_errors_go_to_stderr(store: StoreProcess) -> None:
    failed = sql(store.port, "SELECT nope")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "Code: 47" in failed.stderr
    assert sql(store.port).returncode == 2


def test_a_store_that_is_not_there(store: StoreProcess) -> None:
    failed = sql(1, "SELECT 1")
    assert failed.returncode == 1
    assert "k2 up" in failed.stderr
    assert "127.0.0.1:1" in failed.stderr


def test_a_terminal_gets_a_table(store: StoreProcess) -> None:
    own, theirs = pty.openpty()
    environ = {**os.environ, "K2_STORE_PORT": str(store.port), "COLUMNS": "80"}
    command = [sys.executable, "-m", "k2", "sql", "SELECT 1 AS one, NULL AS none, 'x' AS text"]
    process = subprocess.Popen(command, stdout=theirs, env=environ)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(own, 4096):
            seen += chunk
    except OSError:
        os.close(own)
    assert process.wait(PATIENCE_S) == 0
    assert b"one" in seen
    assert b"text" in seen
    assert b"\t" not in seen
