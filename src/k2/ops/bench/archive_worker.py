"""What `k2 bench archive` times, each in a process of its own: `python -m k2.ops.bench.archive_worker`.

It works on the folder that the configuration names. Each line it hears is a job, and each line it says an answer, with
the most memory that the process has had resident until then (`peak`, bytes): `{"job": "offload"}` archives what the log
has, `{"job": "compact"}` compacts the trades, `{"job": "load"}` takes what was archived into memory, and `{"job":
"append"}` has PyIceberg alone append the same rows to new tables, in as many commits as the archive made. Loading
libraries and rows is not in the `seconds`; making the tables is, in both.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from k2.config import Config, load
from k2.tier.keep import compact
from k2.tier.schema import TABLES, TRADES, ColdTable
from k2.wire import open_archive, open_catalog, open_log

Answer = dict[str, Any]


class Worker:
    """The jobs, by name."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rows: dict[str, list[pa.Table]] = {}
        self.appended = 0

    def offload(self) -> Answer:
        log = open_log(self.config)
        archive = open_archive(self.config, log)
        try:
            began = time.perf_counter()
            written = archive.run()
            seconds = time.perf_counter() - began
        finally:
            log.close()
        return {"seconds": seconds, "tables": {name: one._asdict() for name, one in written.items()}}

    def compact(self) -> Answer:
        catalog = open_catalog(self.config)
        target = self.config.tier.target_file_mb << 20
        works = list(compact.due(catalog.load_table(TRADES.identifier), target))
        began = time.perf_counter()
        new = []
        for group in compact.together(works):
            with compact.Compaction(catalog, TRADES, self.config.cold_dir / "compaction", target) as compaction:
                new += [file for work in group for file in compaction.rewrite(work)]
                compaction.commit()
        return {
            "seconds": time.perf_counter() - began,
            "files_in": sum(len(work.files) for work in works),
            "files_out": len(new),
            "rows": sum(work.rows for work in works),
            "bytes": sum(file.file_size_in_bytes for file in new),
        }

    def load(self) -> Answer:
        catalog = open_catalog(self.config)
        for name, cold in TABLES.items():
            table = catalog.load_table(cold.identifier)
            rows, commits = table.scan().to_arrow().combine_chunks(), len(table.snapshots())
            if rows.num_rows:
                each = -(-rows.num_rows // commits)
                self.rows[name] = [rows.slice(at, each) for at in range(0, rows.num_rows, each)]
        return {"rows": {name: sum(part.num_rows for part in parts) for name, parts in self.rows.items()}}

    def append(self) -> Answer:
        """By exchange only: for the day of a time PyIceberg would want a compiled helper. Nothing is synced."""
        folder = Path(self.config.data_dir) / "floor"
        folder.mkdir(exist_ok=True)
        catalog = load_catalog("floor", type="sql", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
        self.appended += 1
        catalog.create_namespace(f"floor_{self.appended}")
        began = time.perf_counter()
        tables = {name: self._append(catalog, TABLES[name], parts) for name, parts in self.rows.items()}
        seconds = time.perf_counter() - began
        size = sum(task.file.file_size_in_bytes for task in tables[TRADES.name].scan().plan_files())
        return {"seconds": seconds, "bytes": size}

    def _append(self, catalog: Catalog, cold: ColdTable, parts: list[pa.Table]) -> Table:
        exchange = cold.schema.find_field("exchange")
        table = catalog.create_table(
            f"floor_{self.appended}.{cold.name}",
            cold.schema,
            partition_spec=PartitionSpec(PartitionField(exchange.field_id, 1000, IdentityTransform(), "exchange")),
            properties=cold.properties,
        )
        for part in parts:
            table.append(part)
        return table


def main() -> None:
    worker = Worker(load())
    jobs: dict[str, Callable[[], Answer]] = {
        "offload": worker.offload, "compact": worker.compact, "load": worker.load, "append": worker.append,
    }  # fmt: skip
    for line in sys.stdin:
        answer = jobs[json.loads(line)["job"]]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        sys.stdout.write(msgspec.json.encode({**answer, "peak": peak}).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
