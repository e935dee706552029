"""`k2 completion`: a real bash completes verbs, options and values."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from k2.cli import VERBS, main

PRESS = """
source <(k2 completion bash)
COMP_WORDS=(k2 {words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_k2_completion k2
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def press_tab(words: str) -> list[str]:
    bash = shutil.which("bash")
    assert bash, "bash is on every machine that K2 runs on"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "--norc", "-c", PRESS.format(words=words)], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    return done.stdout.split()


def test_bash_completes_verbs() -> None:
    assert press_tab("ver") == ["verify"]
    assert press_tab("''") == list(VERBS)


def test_bash_completes_options_and_values() -> None:
    assert "--interval" in press_tab("candles --int")
    assert press_tab("--data x export ca") == ["candles"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"{shell}_complete" in result.output
