"""Memory and processor time of the whole platform, the simulator apart: at work and idle.

`k2 demo` runs as a person starts it, at the rate; then the simulator stops trading and the platform idles. Memory is
the sum of the processes' resident sizes, sampled every second: the largest sum counts. Processor time is user and
system time of all processes over the window, in percent of one core.
"""

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.request import Request, urlopen

import msgspec
import psutil
from msgspec import Meta

from k2.ops.bench import Outcome, Picture
from k2.ops.bench.demonstration import Demonstration
from k2.ops.bench.lab import Lab
from k2.ops.bench.samples import cpu_seconds, memory, middle
from k2.ops.report import at_least, below

MEMORY_TARGET_MB, CPU_TARGET, IDLE_TARGET = 900.0, 60.0, 10.0
PSS_EVERY = 10  # samples: reading it walks the process's page tables
SETTLE = 8.0


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rate: Annotated[float, Meta(description="Trades a second that the simulator makes.")] = 500.0
    seconds: Annotated[float, Meta(description="Length of the window at work.")] = 60.0
    warm_up: Annotated[float, Meta(description="Seconds at work before it.")] = 20.0
    idle_seconds: Annotated[float, Meta(description="Length of the window without trades.")] = 30.0
    settle: Annotated[float, Meta(description="Seconds without trades before it.")] = SETTLE


def run(lab: Lab, parameters: Parameters) -> Outcome:
    """Measure."""
    demonstration = Demonstration(lab, "footprint", parameters.rate)
    demonstration.first_candle()
    lab.until(demonstration.complete, "every process to run")
    lab.say(f"{parameters.rate:g} trades/s: warming up")
    time.sleep(parameters.warm_up)
    before = int(_control(demonstration, "status")["made"])
    work = _window(demonstration, parameters.seconds)
    made = int(_control(demonstration, "status")["made"]) - before
    lab.say(f"at work: {work['rss_mb_max']} MB, {work['cpu_percent']} % of a core")
    _control(demonstration, "rate", {"rate": 0})
    time.sleep(parameters.settle)
    idle = _window(demonstration, parameters.idle_seconds)
    lab.say(f"idle: {idle['rss_mb_max']} MB, {idle['cpu_percent']} % of a core")
    demonstration.stop()
    rate = made / parameters.seconds
    checks = [
        below("resident memory at work, largest sum", work["rss_mb_max"], MEMORY_TARGET_MB, "MB"),
        below("CPU at work", work["cpu_percent"], CPU_TARGET, "% of a core"),
        below("CPU idle", idle["cpu_percent"], IDLE_TARGET, "% of a core"),
        at_least("trades a second that were made", rate, parameters.rate * 0.9, "1/s"),
    ]
    pictures = [_picture(f"{parameters.rate:g} trades/s", work), _picture("Idle", idle)]
    raw = {"at work": work.pop("samples"), "idle": idle.pop("samples")}
    return Outcome({"made_per_s": round(rate, 1), "work": work, "idle": idle, **lab.place()}, checks, pictures, raw)


def _window(demonstration: Demonstration, seconds: float) -> dict[str, Any]:
    """Memory and processor time of each process over a window."""
    processes = {name: psutil.Process(pid) for name, pid in demonstration.pids().items() if name != "sim"}
    simulator = psutil.Process(demonstration.pids()["sim"])
    cpu = {name: cpu_seconds(process) for name, process in processes.items()}
    simulator_cpu = cpu_seconds(simulator)
    rss: list[dict[str, int]] = []
    pss: list[dict[str, int]] = []
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        rss.append({name: process.memory_info().rss >> 10 for name, process in processes.items()})
        if len(rss) % PSS_EVERY == 1:
            pss.append({name: memory(process).pss >> 10 for name, process in processes.items()})
        time.sleep(min(1.0, seconds - elapsed))
    elapsed = time.monotonic() - began
    used = {name: (cpu_seconds(process) - cpu[name]) / elapsed * 100 for name, process in processes.items()}
    return {
        "seconds": round(elapsed, 1),
        "rss_mb_max": _mb(max(sum(sample.values()) for sample in rss)),
        "rss_mb_median": _mb(middle([sum(sample.values()) for sample in rss])),
        "pss_mb_max": _mb(max(sum(sample.values()) for sample in pss)),
        "cpu_percent": round(sum(used.values()), 1),
        "simulator_cpu_percent": round((cpu_seconds(simulator) - simulator_cpu) / elapsed * 100, 1),
        "processes": [
            {
                "process": name,
                "cpu_percent": round(used[name], 1),
                "rss_mb_max": _mb(max(sample[name] for sample in rss)),
                "pss_mb_max": _mb(max(sample[name] for sample in pss)),
            }
            for name in processes
        ],
        "samples": rss,
    }


def _mb(kib: float) -> float:
    return round(kib * 1024 / 1e6, 1)


def _control(demonstration: Demonstration, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    sim = demonstration.config.sim
    data = None if body is None else json.dumps(body).encode()
    url = f"http://{sim.host}:{sim.rest_port}/control/{path}"
    with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=10) as answer:
        said: dict[str, Any] = json.load(answer)
        return said


def _picture(title: str, window: Mapping[str, Any]) -> Picture:
    rows = [list(process.values()) for process in window["processes"]]
    rows.append(["all", window["cpu_percent"], window["rss_mb_max"], window["pss_mb_max"]])
    return Picture(title, ("process", "CPU %", "RSS MB, most", "PSS MB, most"), rows)
