"""Clusters of the files deploy/local/emulated-*.yaml, and what their books must say."""
import pytest

import cluster as clusters

SETS = sorted(path.stem for path in (clusters.SOURCE / "deploy" / "local").glob("emulated-*.yaml"))


class Emulated(clusters.Cluster):
    """A cluster of one file of deploy/local."""

    def __init__(self, name, extra=()):
        super().__init__(name, model_name="emulated-model", extra=["--config", str(clusters.SOURCE / "deploy" / "local" / (name + ".yaml")),
                                                                   *extra])
        at = self.up_command.index("--topology")
        del self.up_command[at:at + 2]


def expect_balanced_books(cluster):
    """Every second of every device is somewhere: the states add up to the elapsed time, which is read from another clock."""
    for name in cluster.workers():
        metrics = cluster.metrics(name)
        booked = sum(value for (metric, _), value in metrics.items() if metric == "tandem_stage_seconds_total")
        elapsed = next(value for (metric, _), value in metrics.items() if metric == "tandem_device_elapsed_seconds_total")
        # 1 ms: the two clocks are read one after the other, on a machine that others use.
        assert elapsed > 0 and booked == pytest.approx(elapsed, rel=0, abs=1e-3), (name, booked, elapsed)


def expect_refused(cluster, words):
    """It does not start, and says why with these words."""
    try:
        result = cluster.ctl(*cluster.up_command, "--ready-timeout", "60", check=False)
        assert result.returncode != 0
        for word in words:
            assert word in result.stdout + result.stderr, (word, result.stdout, result.stderr)
    finally:
        cluster.down()
