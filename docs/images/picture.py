"""Run a command in a terminal of 150 columns and keep its last screen as an SVG.

usage: picture.py OUT.svg COMMAND [ARGUMENT ...]
"""

import os
import pty
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main() -> None:
    target, *command = sys.argv[1:]
    seen = bytearray()
    os.environ |= {"COLUMNS": "150", "LINES": "40", "TERM": "xterm-256color"}

    def keep(descriptor: int) -> bytes:
        data = os.read(descriptor, 1 << 16)
        seen.extend(data)
        return data

    pty.spawn(command, keep)
    console = Console(record=True, width=150, file=Path(os.devnull).open("w"))  # noqa: SIM115
    text = Text.from_ansi(seen.decode().replace("\r\n", "\n"))
    console.print(Text(f"$ {' '.join(Path(part).name if i == 0 else part for i, part in enumerate(command))}", "bold"))
    console.print(text)
    Path(target).write_text(console.export_svg(title="K2"))


if __name__ == "__main__":
    main()
