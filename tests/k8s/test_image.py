"""The image: the same tree gives the same bytes, and it holds what the product installs and nothing that runs as root."""
import hashlib
import json
import os
import pathlib
import re
import socket
import subprocess
import tarfile

import pytest

from kube import SOURCE, wait_for

BUILD = os.environ.get("TANDEM_BINARY_DIR", SOURCE / "build" / "dev")
SCRIPT = SOURCE / "deploy" / "images" / "build.sh"


def build(*arguments, check=True):
    result = subprocess.run([SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "tandem.tar"
    build("--build-dir", BUILD, "--output", path)
    return path


def layers(archive):
    """(config, [tar of a layer])."""
    tar = tarfile.open(archive)
    read = lambda digest: tar.extractfile(f"blobs/{digest.replace(':', '/')}")
    (image,) = json.load(tar.extractfile("index.json"))["manifests"]
    manifest = json.load(read(image["digest"]))
    return json.load(read(manifest["config"]["digest"])), [tarfile.open(fileobj=read(layer["digest"])) for layer in manifest["layers"]]


def test_the_same_tree_gives_the_same_bytes(archive, tmp_path):
    build("--build-dir", BUILD, "--output", tmp_path / "again.tar")
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "again.tar", archive)}
    assert len(digests) == 1


def test_it_runs_as_nobody_in_particular_and_holds_no_shell(archive):
    config, (programs, model) = layers(archive)
    assert config["config"]["User"] == "65532:65532" and config["rootfs"]["type"] == "layers"
    names = [entry.name for entry in programs]
    assert {"usr/bin/tandem-gateway", "usr/bin/tandem-router", "usr/bin/tandem-worker", "usr/bin/tandemctl"} == {
        name for name in names if name.startswith("usr/bin/")}
    assert not [entry.name for layer in (programs, model) for entry in layer if entry.mode & 0o6000 or entry.uid or entry.gid]
    assert [name for name in names if name.startswith("usr/share/tandem/catalog/chips/")]
    assert [entry.name for entry in model if entry.isfile()] == ["usr/share/tandem/models/SmolLM2-135M-Instruct.Q4_1.gguf"]


def test_every_library_that_a_program_asks_for_is_in_it(archive, tmp_path):
    _, (programs, _) = layers(archive)
    tmp_path.chmod(0o755)  # the uid of the image has to get in
    programs.extractall(tmp_path)
    for program in (tmp_path / "usr/bin").iterdir():
        # No loader of this machine's, no library of this machine's: only what is in the image.
        result = subprocess.run(["chroot", "--userspec=65532:65532", tmp_path, f"/usr/bin/{program.name}", "--help"], capture_output=True,
                                text=True)
        assert result.returncode == 0 and "--help" in result.stdout, (program.name, result)


def test_without_the_model_there_is_one_layer(tmp_path):
    build("--build-dir", BUILD, "--without-model", "--output", tmp_path / "small.tar")
    _, found = layers(tmp_path / "small.tar")
    assert len(found) == 1


@pytest.mark.parametrize("arguments, said", [
    (["--frobnicate"], "no option '--frobnicate'"), (["--build-dir", "/nowhere"], "/nowhere/bin/tandem-gateway"), (["--push"], "--push needs a value"),
    (["--build-dir", str(BUILD), "--model", "/nowhere.gguf"], "/nowhere.gguf"),
], ids=lambda value: str(value)[:20])
def test_what_is_wrong_is_named(arguments, said, tmp_path):
    result = build(*arguments, *([] if arguments == ["--push"] else ["--output", tmp_path / "x.tar"]), check=False)
    assert result.returncode == 1 and said in result.stderr, result


@pytest.fixture
def registry(tmp_path):
    """Debian's docker-registry on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "registry.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/blobs}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n")
    with open(tmp_path / "registry.log", "w") as log:
        server = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        def listens():
            assert server.poll() is None, (tmp_path / "registry.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        wait_for("the registry listens", listens)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_push_brings_it_to_a_registry(registry, tmp_path):
    said = build("--build-dir", BUILD, "--without-model", "--output", tmp_path / "t.tar", "--push", registry, "--insecure").stdout
    tag = re.search(rf"pushed {re.escape(registry)}/tandem:([\d.]+)$", said, re.M)[1]
    inspected = subprocess.run(["skopeo", "inspect", "--tls-verify=false", f"docker://{registry}/tandem:{tag}"], capture_output=True, text=True,
                               check=True).stdout
    assert json.loads(inspected)["Labels"]["tandem.cpu-baseline"] == "x86-64-v3"
    assert pathlib.Path(tmp_path / "blobs").exists()
