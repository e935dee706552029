"""From the log into Iceberg: what `k2 archive` does."""
