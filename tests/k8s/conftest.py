import pathlib
import signal
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "e2e"))  # cluster.py


def pytest_configure():
    """Told to stop, we take the cluster down first, as after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
