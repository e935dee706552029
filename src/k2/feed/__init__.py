"""Feed handlers: one process an exchange, from its socket to the log, and from its REST interface into what is missing.

    socket ──frames──▶ recorder ──decode, drop what is known──▶ one durable append: raw frames, trades, gap events
                          ▲
    healer ──REST answers─┘

Everything that decides what stands in the trade stream is the pure `k2.core.session.Decoder`; this folder owns sockets,
clocks, retries and the writer thread. Nothing here may decide by the clock whether a trade is recorded.
"""
