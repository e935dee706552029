"""The pure core: what a trade, a hole, a candle and a record are.

Nothing here may touch a clock, a socket, a file, the environment or randomness; a linter enforces it. Time comes in
as an argument (int ns UTC), so everything here can be tested by tables and properties.
"""
