"""The embedded store as a service: it owns the engine's directory and speaks ClickHouse's HTTP protocol.

`service.serve` runs until SIGTERM or SIGINT. On them it stops listening, lets running statements finish (1.5 s at
most), and closes the engine; nothing that was acknowledged is lost, as nothing is lost by `kill -9`.
"""
