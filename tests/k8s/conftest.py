"""The cluster that test_cluster.py, test_watching.py, test_operations.py and test_secured.py share: one run, one story."""
import os
import pathlib
import signal
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "dashboards")]

import kube as kubernetes  # noqa: E402
import monitoring as watchers  # noqa: E402
from release import Load, Release  # noqa: E402


def pytest_configure():
    """Told to stop, we take the cluster down first, as after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_runtest_makereport(item, call):
    """The tests of a cluster are one story: what comes after a failure would only wait, each for as long as it may."""
    if call.excinfo and "kube" in item.fixturenames:
        item.session.shouldfail = f"{item.name} failed, and the rest of the story goes on from where it ends"


@pytest.fixture(scope="session")
def kube(tmp_path_factory):
    cluster, before = kubernetes.Kube(), kubernetes.settings()
    try:
        cluster.up()
        watchers.start_adapter(cluster)
        print(f"\n{cluster.seconds():.0f} s: the node is Ready")
        archive = tmp_path_factory.mktemp("image") / "tandem.tar"
        subprocess.run([kubernetes.SOURCE / "deploy/images/build.sh", "--build-dir", kubernetes.BUILD, "--output", archive, "--import"], check=True,
                       env=os.environ | {"CONTAINERD_ADDRESS": str(cluster.cri)})
        cluster.make_namespace("serving")
        watchers.install_kinds(cluster)
        print(f"{cluster.seconds():.0f} s: the image is there")
        yield cluster
    finally:
        if os.environ.get("TANDEM_E2E_KEEP"):
            print(f"kept: {cluster.folder}")
        cluster.down(keep_logs="TANDEM_E2E_KEEP" in os.environ)
    assert kubernetes.settings() == before, "the machine's own settings were changed"
    assert not kubernetes.left_over()


@pytest.fixture(scope="session")
def release(kube):
    release = Release(kube)
    said = release.install()
    assert "violate" not in said.stderr, said.stderr  # PodSecurity's warnings
    print(f"{kube.seconds():.0f} s: the release is installed and ready")
    return release


@pytest.fixture(scope="session")
def monitoring(release):
    """Prometheus and the metrics of HPAs, from now on."""
    return watchers.Monitoring(release.kube, release.namespace)


@pytest.fixture(scope="session")
def text(release, monitoring):
    """What every whole stream must say, whoever computes it. Watched by Prometheus from the first."""
    with Load(release, clients=1) as load:
        load.more(1)
    assert not load.failed(), load.failed()
    assert len(load.texts()) == 1
    return next(iter(load.texts()))
