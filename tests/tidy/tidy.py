#!/usr/bin/env python3
"""House rules that a machine can check: include levels, clocks and chance, sizes, headers, READMEs.

    tests/tidy/tidy.py [ROOT]      checks the tree below ROOT (default: this checkout); exit 1 with one line a finding
"""
import os
import re
import subprocess
import sys

# Where a folder stands on the stairs; an include may go to the same room or to a lower step. DESIGN section 5.
LEVELS = [
    ("scheduler/base", 0), ("scheduler/model", 10), ("scheduler/view", 11), ("scheduler/cost", 12),
    ("scheduler/prefix", 12), ("scheduler/ledger", 12), ("scheduler/policy", 13), ("scheduler/step", 14),
    ("scheduler/control", 15), ("scheduler/planner", 20), ("scheduler/sim", 20), ("services/runtime", 20),
    ("workers", 30), ("services/router", 30), ("services/gateway", 30), ("services/ctl", 30), ("tests", 40),
]
# Rooms of one step that may not see each other, and rooms that a worker may not see.
APART = {"workers", "services/router", "services/gateway", "services/ctl", "scheduler/planner", "scheduler/sim",
         "services/runtime", "scheduler/cost", "scheduler/prefix", "scheduler/ledger"}
FORBIDDEN = {"workers": ("scheduler/control", "scheduler/planner", "scheduler/sim"),
             "services/gateway": ("scheduler/control", "scheduler/sim", "scheduler/step", "scheduler/policy")}

CLOCKS = re.compile(r"steady_clock::now|system_clock::now|high_resolution_clock|absl::Now\b|absl::GetCurrentTimeNanos|"
                    r"\btime\(nullptr\)|gettimeofday|clock_gettime")
# The shells that make real clocks. Tests may read one for the deadline of a wait, so that a hang fails instead of hanging.
CLOCK_ROOMS = ("services/runtime/", "workers/daemon/", "services/ctl/local_", "services/gateway/main.cc", "tests/")
SLEEPS = re.compile(r"sleep_for|sleep_until|absl::SleepFor|\busleep\s*\(|\brandom_device\b|\bstd::rand\b")
SLEEP_ROOMS = ("services/runtime/", "workers/daemon/")
PURE = re.compile(r"#include\s+[<\"](thread|mutex|condition_variable|atomic|future|grpc|google/protobuf|tandem/v1|boost/asio|"
                  r"sys/socket|chrono)")
MAX_CC_LINES = 500
TEXT_ENDINGS = (".h", ".cc")


def files_of(root):
    """Tracked and untracked, not ignored; every file below ROOT where it is no git checkout."""
    try:
        out = subprocess.run(["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard"],
                             check=True, capture_output=True, text=True).stdout.split("\n")
        listed = [name for name in out if name and os.path.isfile(os.path.join(root, name))]
        if listed:
            return sorted(set(listed))
    except (subprocess.CalledProcessError, FileNotFoundError):
        pass
    return sorted(os.path.relpath(os.path.join(folder, name), root)
                  for folder, _, names in os.walk(root) for name in names)


def room_of(path):
    best = max((room for room, _ in LEVELS if path.startswith(room + "/")), key=len, default=None)
    return best, dict(LEVELS).get(best)


def check_includes(path, lines):
    room, level = room_of(path)
    if room is None:
        return
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#include\s+"([^"]+)"', line)
        if not match:
            continue
        target_room, target_level = room_of(match.group(1))
        if target_room is None or target_room == room:
            continue
        if target_level > level or (target_level == level and room in APART):
            yield number, f"{room} includes {match.group(1)}: that stair goes up"
        for forbidden in FORBIDDEN.get(room, ()):
            if target_room == forbidden:
                yield number, f"{room} may not include {forbidden}"


def check_source(path, text):
    lines = text.split("\n")
    yield from check_includes(path, lines)
    if path.endswith(".h") and "#pragma once" not in text:
        yield 1, "no #pragma once"
    if path.endswith(".cc") and len(lines) > MAX_CC_LINES:
        yield MAX_CC_LINES, f"{len(lines)} lines exceed {MAX_CC_LINES}: split by responsibility"
    for number, line in enumerate(lines, 1):
        code = line.split("//")[0]
        if CLOCKS.search(code) and not path.startswith(CLOCK_ROOMS):
            yield number, "a clock outside services/runtime and workers/daemon: take a TimeSource"
        if SLEEPS.search(code) and not path.startswith(SLEEP_ROOMS):
            yield number, "a sleep or chance: wait for a condition, take a Random"
        if path.startswith("scheduler/") and PURE.search(code):
            yield number, "scheduler/ is pure: no thread, socket, protobuf or clock"
        if re.search(r"\bTODO\b(?!\(issue \d+\))|\bFIXME\b|\bXXX\b", line):
            yield number, "an open end names its issue: TODO(issue N)"
        if path.startswith("tests/") and re.search(r"\b(DISABLED_|GTEST_SKIP)", line):
            yield number, "a test that does not run proves nothing"


def check_tree(root):
    names = files_of(root)
    for name in names:
        if name.endswith(TEXT_ENDINGS):
            with open(os.path.join(root, name), encoding="utf-8") as f:
                text = f.read()
            for number, finding in check_source(name, text):
                yield f"{name}:{number}: {finding}"
    # One folder, one library, one README.
    for name in names:
        folder = os.path.dirname(name)
        if name.endswith("CMakeLists.txt") and folder.split("/")[0] in ("scheduler", "workers", "services"):
            with open(os.path.join(root, name), encoding="utf-8") as f:
                if re.search(r"^\s*tandem_(library|binary)", f.read(), re.M) and f"{folder}/README.md" not in names:
                    yield f"{folder}: has a library and no README.md"


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    findings = list(check_tree(os.path.normpath(root)))
    print("\n".join(findings) if findings else "tidy: nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
