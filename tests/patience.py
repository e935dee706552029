"""How long a test waits for what must come: long enough for a busy machine, and less than a test's own time-out.

Wait for the condition, not for the clock: what another process or thread does is never done "by now".
"""

PATIENCE_S = 60.0
