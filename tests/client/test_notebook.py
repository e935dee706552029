"""docs/quickstart.ipynb runs as it is written, over a platform's data, and is kept without what a run leaves behind."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tests.web.serving import Served

FILE = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


def test_it_runs_and_draws(served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {**served.environ, "IPYTHONDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(FILE, as_version=4)
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    assert all(len(picture["data"]["image/png"]) > 10_000 for picture in pictures)
    told = "".join(output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for output in outputs)
    assert "binance:BTC-USDT: 2,000 trades" in told
    assert re.search(r"kraken +BTC-USD .* 201 +205 +unavailable", told)
    assert not [output for output in outputs if output["output_type"] == "stream" and output["name"] == "stderr"]


def test_it_is_kept_clean() -> None:
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not re.search(r"/home/|/Users/|/tmp/|/root", FILE.read_text())
