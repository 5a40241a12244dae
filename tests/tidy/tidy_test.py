#!/usr/bin/env python3
"""tidy.py finds what it is there to find: each rule is broken once in a small tree."""
import os
import subprocess
import sys
import tempfile
import unittest

TIDY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tidy.py")


def findings(files):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        run = subprocess.run([sys.executable, TIDY, root], capture_output=True, text=True)
        return run.returncode, run.stdout


class TidyTest(unittest.TestCase):
    def expect(self, files, words):
        code, out = findings(files)
        self.assertEqual(code, 1, out)
        self.assertIn(words, out)

    def test_clean_tree_passes(self):
        code, out = findings({"scheduler/step/a.h": '#pragma once\n#include "scheduler/base/time.h"\n'})
        self.assertEqual(code, 0, out)

    def test_an_include_may_not_climb(self):
        self.expect({"scheduler/base/a.h": '#pragma once\n#include "scheduler/step/b.h"\n'}, "that stair goes up")
        self.expect({"scheduler/policy/a.cc": '#include "scheduler/control/b.h"\n'}, "that stair goes up")

    def test_rooms_of_one_step_meet_only_in_proto(self):
        self.expect({"services/router/a.cc": '#include "workers/engine/b.h"\n'}, "that stair goes up")
        self.expect({"services/gateway/a.cc": '#include "services/router/b.h"\n'}, "that stair goes up")

    def test_workers_may_not_use_control_or_sim(self):
        self.expect({"workers/engine/a.cc": '#include "scheduler/control/b.h"\n'}, "may not include")
        self.expect({"workers/engine/a.cc": '#include "scheduler/sim/b.h"\n'}, "may not include")

    def test_clocks_and_chance_are_arguments(self):
        self.expect({"workers/engine/a.cc": "auto t = std::chrono::steady_clock::now();\n"}, "a clock")
        self.expect({"tests/unit/a.cc": "std::this_thread::sleep_for(x);\n"}, "a sleep")
        self.expect({"scheduler/sim/a.cc": "std::random_device d;\n"}, "a sleep or chance")
        code, out = findings({"services/runtime/a.cc": "auto t = std::chrono::steady_clock::now();\n"})
        self.assertEqual(code, 0, out)

    def test_scheduler_is_pure(self):
        for header in ("<thread>", "<mutex>", '"tandem/v1/router.pb.h"', "<grpcpp/grpcpp.h>", "<chrono>"):
            self.expect({"scheduler/step/a.cc": f"#include {header}\n"}, "scheduler/ is pure")

    def test_sizes_headers_open_ends_and_readmes(self):
        self.expect({"workers/a/b.cc": "int x;\n" * 501}, "split by responsibility")
        self.expect({"workers/a/b.h": "int x;\n"}, "no #pragma once")
        self.expect({"workers/a/b.cc": "// TODO: later\n"}, "TODO(issue N)")
        self.expect({"tests/unit/b.cc": "TEST(A, DISABLED_B) {}\n"}, "proves nothing")
        self.expect({"workers/a/CMakeLists.txt": "tandem_library(a SOURCES a.cc)\n"}, "no README.md")


if __name__ == "__main__":
    unittest.main()
