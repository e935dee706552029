"""Commands of the system that drills make and unmake things with."""

import subprocess

from k2.ops.drill import DrillError

WITHIN_S = 20.0


def run(*command: str) -> str:
    """Run a command to its end and return what it printed. Raises DrillError with its words if it fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DrillError(f"{' '.join(command)}: {error}") from None
    if done.returncode:
        raise DrillError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
