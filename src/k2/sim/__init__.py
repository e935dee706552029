"""The three exchanges on loopback: their WebSocket and REST protocols, fed by a seeded generator or a recorded capture.

What a client is told, whatever fault is played on the way, and what was really traded are two things: the second one is
the truth on disk (`truth.py`), written before anything is sent. Nothing here is used by the live platform.
"""
