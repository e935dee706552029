"""Processes that die, freeze, and come back."""

from k2.ops.drill import Drill
from k2.ops.drill.stage import Stage


def _kill_loader(stage: Stage) -> None:
    with stage.failing():
        stage.platform.kill("loader")


DRILLS = (
    Drill(
        name="loader-killed",
        summary="kill -9 of the loader",
        expectation=(
            "the supervisor sees it at once and starts another, which goes on from the last commit; what the log took "
            "in meanwhile becomes visible, none twice; feeds and readers go on"
        ),
        act=_kill_loader,
        seen_by=("supervisor:loader", "down:loader", "silent:loader"),
    ),
)
