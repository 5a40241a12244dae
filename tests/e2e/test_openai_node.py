"""The official npm client, pointed at a gateway, without changes: openai_client.mjs under a Node.js it supports."""
import json
import os
import pathlib
import subprocess

from cluster import CACHE


def test_the_npm_client_works(pd_afd):
    node = CACHE / "venv" / "bin" / "node"
    modules = CACHE / "node" / "node_modules"
    assert node.exists() and (modules / "openai").exists(), "run tests/e2e/setup.sh"
    script = pathlib.Path(__file__).with_name("openai_client.mjs")
    result = subprocess.run([str(node), str(script), pd_afd.url + "/v1", pd_afd.model_name], capture_output=True, text=True,
                            timeout=300, env={**os.environ, "NODE_MODULES": str(modules)})
    assert result.returncode == 0, result.stderr
    got = json.loads(result.stdout)
    assert got["models"] == [pd_afd.model_name]
    assert got["whole"].strip()
    assert got["streamed"] == got["whole"]
    assert got["chunks"] > 5
    assert got["usage"]["completion_tokens"] >= 5
    assert len(set(got["choices"])) == 2
    assert "".join(got["tokens"]) == got["completion"]
    assert got["refusal"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}
    assert got["before_abort"] == 3
    pd_afd.wait_idle()  # the stream that the client left holds nothing any more
