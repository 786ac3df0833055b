"""stats: from what the kernel counts to what is shown."""

from __future__ import annotations

import os

import pytest

from minibox.cli.commands.stats import CLEAR, format_binary, frame, stats_row
from minibox.engine.container.update import live_resources
from minibox.engine.report.stats import Reading, cpu_percent
from minibox.engine.spec.options import RunOptions
from minibox.linux.cgroup import usage_meter
from minibox.record import replace

S = 1_000_000_000


def reading(**more: object) -> Reading:
    return Reading("a" * 64, "web", True, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "cpu_ns", "percent"),
    [
        (reading(moment_ns=S, cpu_ns=S), 2 * S, 100.0),
        (reading(moment_ns=S, cpu_ns=S), 3 * S, 200.0),
        (reading(moment_ns=S, cpu_ns=S), S, 0.0),
        (reading(moment_ns=S, cpu_ns=9 * S), S, 0.0),  # started anew
        (reading(moment_ns=S, cpu_ns=None), S, None),
        (reading(moment_ns=2 * S, cpu_ns=S), S, None),
        (None, S, None),
    ],
)
def test_cpu_percent(before, cpu_ns, percent):
    assert cpu_percent(before, cpu_ns, 2 * S) == percent


def test_a_row_has_dockers_fields():
    row = stats_row(reading(cpu_percent=12.345, memory_bytes=1 << 20, memory_limit_bytes=1 << 30, received_bytes=1500,
                            sent_bytes=0, io_read_bytes=None, io_write_bytes=None, pids=3))  # fmt: skip
    assert row == {
        "BlockIO": "-- / --", "CPUPerc": "12.35%", "Container": "web", "ID": "a" * 12, "MemPerc": "0.10%",
        "MemUsage": "1MiB / 1GiB", "Name": "web", "NetIO": "1.5kB / 0B", "PIDs": "3",
    }  # fmt: skip
    unknown = stats_row(reading(), no_trunc=True)
    assert (unknown["CPUPerc"], unknown["MemPerc"], unknown["PIDs"]) == ("--", "--", "--")
    assert unknown["ID"] == "a" * 64


def test_sizes_as_docker_shows_memory():
    assert [format_binary(size) for size in (0, 1023, 1536, 260 << 10, (3 << 30) // 2, 25_276_829_696)] == [
        "0B", "1023B", "1.5KiB", "260KiB", "1.5GiB", "23.54GiB",
    ]  # fmt: skip


def test_a_frame_fits_the_terminal_and_does_not_flicker():
    lines = [f"line {number}" for number in range(9)]
    assert frame(lines, 24, first=True).startswith(CLEAR) and CLEAR not in frame(lines, 24, first=False)
    short = frame(lines, 6, first=False)
    assert short.count("\n") == 5 and "line 3" in short and "line 4" not in short and "and 5 more" in short


def test_processes_are_counted_without_a_cgroup():
    mine = usage_meter.processes(usage_meter.descendants(os.getpid()))
    assert mine.cpu_ns > 0 and mine.memory_bytes > 1 << 20 and mine.threads >= 1
    assert usage_meter.processes([0x7FFFFFFF]).threads == 0


@pytest.mark.parametrize(
    ("before", "changes", "asked"),
    [
        ({}, {"memory_bytes": 64 << 20}, {"memory": {"limit": 64 << 20}}),
        ({"memory_bytes": 64 << 20}, {"memory_swap_bytes": 128 << 20},
         {"memory": {"limit": 64 << 20, "swap": 128 << 20}}),
        ({"memory_bytes": 64 << 20}, {"memory_bytes": 0}, {"memory": {"limit": -1, "swap": -1}}),
        ({"memory_bytes": 64 << 20, "pids_limit": 5}, {"pids_limit": 7}, {"pids": {"limit": 7}}),
        ({}, {"pids_limit": 0}, {"pids": {"limit": -1}}),
        ({"cpu_shares": 512}, {"cpus": 0.5}, {"cpu": {"quota": 50_000, "period": 100_000}}),
        ({}, {"cpus": 0.0}, {"cpu": {"quota": -1, "period": 100_000}}),
        ({"cpus": 0.5}, {"cpu_shares": 0}, {"cpu": {"shares": 1024}}),
        ({}, {"cpuset_cpus": ""}, {"cpu": {"cpus": ""}}),
        ({}, {"cpuset_mems": "0"}, {"cpu": {"mems": "0"}}),
        ({"cpu_quota_us": 50_000}, {"cpu_period_us": 50_000}, {"cpu": {"quota": 50_000, "period": 50_000}}),
        ({"cpu_quota_us": 50_000}, {"cpu_quota_us": 0}, {"cpu": {"quota": -1, "period": 100_000}}),
        ({"cpus": 0.5}, {"cpus": 0, "cpu_quota_us": 2000}, {"cpu": {"quota": 2000}}),
        ({"memory_bytes": 64 << 20}, {"memory_reservation_bytes": 32 << 20}, {"memory": {"reservation": 32 << 20}}),
        ({"memory_reservation_bytes": 32 << 20}, {"memory_bytes": 64 << 20}, {"memory": {"limit": 64 << 20}}),
        ({"memory_reservation_bytes": 32 << 20}, {"memory_reservation_bytes": 0}, {"memory": {"reservation": 0}}),
        ({}, {"blkio_weight": 300}, {"blockIO": {"weight": 300}}),
        ({"blkio_weight": 300}, {"blkio_weight": 0}, {"blockIO": {"weight": 0}}),
        ({"memory_bytes": 64 << 20}, {"restart": "always"}, {}),
    ],
)  # fmt: skip
def test_an_update_asks_for_what_changes(before, changes, asked):
    old = RunOptions(image="base", **before)
    new = replace(old, **changes)
    assert live_resources(new, changes) == asked
