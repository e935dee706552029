"""Every input that fuzzing began with or failed at, once more: without atheris, in the short tests."""

import pytest
from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_committed_inputs(name: str) -> None:
    for data in corpus.read(name):
        TARGETS[name](data)


def test_every_target_has_inputs_and_every_input_a_target() -> None:
    assert {file.stem for file in corpus.FOLDER.glob("*.txt")} == TARGETS.keys()


def test_what_is_written_reads_the_same() -> None:
    inputs = [b"\n", b"\r\n\0'\"\\", bytes(range(256)), bytes(5_000)]
    lines = corpus.written(inputs).splitlines()
    assert [corpus.parsed(line) for line in lines] == inputs
    assert max(map(len, lines)) < 2_000
