import sys
import pathlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import cluster as clusters  # noqa: E402

TOPOLOGIES = ["colocated", "pd", "afd", "pd-afd"]


@pytest.fixture(scope="session")
def pd_afd():
    """The cluster that `./dev up` starts: five processes."""
    with clusters.running("pd-afd") as cluster:
        yield cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the ends of the daemons' logs."""
    report = yield
    if report.failed and report.when == "call":
        for value in item.funcargs.values():
            if isinstance(value, clusters.Cluster) and value.state_dir.exists():
                report.sections.append(("logs of the daemons", value.logs()))
    return report
