"""A real Kubernetes of one node on this machine: etcd, kube-apiserver, controller manager, scheduler, CoreDNS, containerd, kubelet and
kube-proxy, all in one network namespace; or its control plane alone, with nodes that KWOK plays. Nothing listens outside of it, and
down() leaves nothing behind."""
import contextlib
import fcntl
import functools
import http.client
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import cluster  # noqa: E402

SOURCE = pathlib.Path(os.environ.get("TANDEM_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("TANDEM_BINARY_DIR", SOURCE / "build" / "dev"))
CACHE = pathlib.Path(os.environ.get("TANDEM_CACHE", pathlib.Path.home() / ".cache/tandem")) / "k8s"
BIN = CACHE / "bin"

NAMESPACE = "tandem-k8s"  # of the network
NODE, NODE_IP = "node-a", "10.255.0.1"
POD_CIDR, SERVICE_CIDR, API_SERVICE, DNS_SERVICE = "10.244.0.0/16", "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
# Host-wide settings that a kubelet changes: it gets files of its own in their place.
SYSCTLS = ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
           "kernel/keys/root_maxbytes"]
# Users of the API by token: name in our files, user, group.
USERS = [("admin", "admin", "system:masters"), ("controllers", "system:kube-controller-manager", ""),
         ("scheduler", "system:kube-scheduler", ""), ("kubelet", f"system:node:{NODE}", "system:nodes"), ("proxy", "system:kube-proxy", ""),
         ("kwok", "kwok", "system:masters")]
LONG = 600  # seconds after which a condition counts as never coming


wait_for = functools.partial(cluster.wait_for, seconds=LONG)


def settings():
    """The host-wide settings that a kubelet would change, as they are on this machine."""
    return {path: pathlib.Path("/proc/sys", path).read_text() for path in SYSCTLS}


def left_over():
    """What of a cluster is still on this machine; empty when down() did its work."""
    found = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines() if NAMESPACE in line]
    hierarchies = pathlib.Path("/sys/fs/cgroup")
    return found + [str(folder) for pattern in ("kubepods", "k8s.io", "*/kubepods", "*/k8s.io") for folder in hierarchies.glob(pattern)]


PREFIX = "tandem-kube-"   # of a cluster's folder


def clear():
    """Removes what outlives a cluster's processes: its network, the empty control groups of its pods, and its folder unless that is kept."""
    if pathlib.Path(f"/run/netns/{NAMESPACE}").exists():
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)
    hierarchies = pathlib.Path("/sys/fs/cgroup")
    for controller in (hierarchies, *hierarchies.glob("*/")):  # of version 2, and of each of version 1's
        for group in ("kubepods", "k8s.io"):
            for folder, _, _ in os.walk(controller / group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not (folder / "kept").exists():
            shutil.rmtree(folder, ignore_errors=True)


def is_ready(thing):
    """A node or a pod, by its own account."""
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in thing.get("status", {}).get("conditions", ()))


def lock(how=fcntl.LOCK_EX):
    """One such cluster a machine: held while the file is open."""
    CACHE.mkdir(parents=True, exist_ok=True)
    file = open(CACHE / "lock", "w")
    fcntl.flock(file, how)
    return file


class Kube:
    def __init__(self):
        self._lock = lock()
        clear()   # what a run that was killed has left; its processes died with it
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
        self.logs = self.folder / "logs"
        self.pki = self.folder / "pki"
        for folder in (self.logs, self.pki, self.folder / "cni"):
            folder.mkdir()
        self.cri = self.folder / "containerd.sock"
        self._api = self.folder / "api.sock"
        self.admin = self.pki / "admin.kubeconfig"
        self._children = {}
        self.started = time.monotonic()

    # --- what tests use ---

    def run(self, *argv, check=True, **options):
        """In the cluster's network; its output as text."""
        result = subprocess.run([*self.enter(), *map(str, argv)], capture_output=True, text=True,
                                env=os.environ | {"KUBECONFIG": str(self.admin), "HOME": str(self.folder)}, **options)
        assert not check or result.returncode == 0, f"{' '.join(map(str, argv))}: exit {result.returncode}\n{result.stdout}{result.stderr}"
        return result

    def client(self):
        """What a kubectl begins with that is not run by kubectl()."""
        return [BIN / "kubectl", "--kubeconfig", self.admin]

    def kubectl(self, *argv, **options):
        return self.run(BIN / "kubectl", *argv, **options)

    def get(self, *argv):
        """What kubectl get says, as data."""
        return json.loads(self.kubectl("get", *argv, "-o", "json").stdout)

    def ask(self, path, **query):
        """What the API server answers to a GET; none unless that is 200. By a `kubectl proxy` that stays up: what is asked ten times a second must
        not start a program each time."""
        server = http.client.HTTPConnection("localhost", timeout=LONG)
        server.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(server):
            server.sock.connect(str(self._api))
            server.request("GET", f"{path}?{urllib.parse.urlencode(query)}")
            reply = server.getresponse()
            body = reply.read()
        return json.loads(body) if reply.status == 200 else None

    def helm(self, *argv, **options):
        return self.run(BIN / "helm", *argv, **options)

    def import_image(self, archive):
        self.run("ctr", "--address", self.cri, "--namespace", "k8s.io", "images", "import", archive)

    def seconds(self):
        return time.monotonic() - self.started

    # --- up ---

    def up(self):
        """Ready when the node is. The images of tests/k8s/images are there; Tandem's own is the caller's to import."""
        self._start_cluster()
        self._start_dns()
        self._start_node()
        images = self.folder / "images"
        subprocess.run([SOURCE / "tests/k8s/images/build.sh", images], check=True, stdout=subprocess.DEVNULL)
        wait_for("containerd answers", lambda: self._probe("ctr", "--address", self.cri, "version"))
        for archive in images.glob("*.tar"):
            self.import_image(archive)
        wait_for("the node is Ready", lambda: self._node_ready())
        return self

    def up_without_kubelet(self):
        """The control plane, and KWOK, which plays the kubelet of every Node that is annotated kwok.x-k8s.io/node: fake. No container runs."""
        self._start_cluster()
        self.start("kwok", BIN / "kwok", "--kubeconfig", self.pki / "kwok.kubeconfig", "--manage-all-nodes=false",
                   "--manage-nodes-with-annotation-selector", "kwok.x-k8s.io/node=fake", "--cidr", "10.250.0.1/24", "--node-ip", "10.250.0.1",
                   # No leases: KWOK refuses its own updates of them by the dozen, and nobody looks at them here.
                   "--node-lease-duration-seconds", "0", "--server-address", "127.0.0.1:10247", "--config", SOURCE / "tests/k8s/kwok.yaml")
        return self

    def _start_cluster(self):
        missing = [name for name in ("kube-apiserver", "kubelet", "coredns", "kwok", "helm") if not (BIN / name).exists()]
        assert not missing, f"{BIN} lacks {missing}: run tests/k8s/setup.sh"
        self._make_network()
        self._make_pki()
        self._start_control_plane()

    def enter(self):
        """What a command begins with to run in the cluster's network."""
        # Not `ip netns exec`, which mounts a new /sys and so hides the cgroups.
        return ["nsenter", f"--net=/run/netns/{NAMESPACE}"]

    def _probe(self, *argv):
        return self.run(*argv, check=False).returncode == 0

    def _make_network(self):
        subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
        for command in ("ip link set lo up",
                        "ip link add node0 type veth peer name node1",  # a link of our own to carry the node's address
                        f"ip addr add {NODE_IP}/24 dev node0", "ip link set node0 up", "ip link set node1 up",
                        "ip route add default dev node0", "sysctl -qw net.ipv4.ip_forward=1"):
            self.run(*command.split())

    def _make_pki(self):
        def openssl(*argv):
            subprocess.run(["openssl", *map(str, argv)], check=True, capture_output=True, cwd=self.pki)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *key, "-days", 2, "-subj", "/CN=tandem-k8s", "-keyout", "ca.key", "-out", "ca.crt")
        openssl("req", *key, "-subj", "/CN=kube-apiserver", "-keyout", "api.key", "-out", "api.csr")
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"]
        addresses = ["127.0.0.1", NODE_IP, API_SERVICE]
        (self.pki / "api.ext").write_text("subjectAltName=" + ",".join([f"DNS:{name}" for name in names] +
                                                                       [f"IP:{address}" for address in addresses]))
        openssl("x509", "-req", "-in", "api.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", 2, "-extfile", "api.ext",
                "-out", "api.crt")
        openssl("genrsa", "-out", "sa.key", 2048)
        openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
        tokens = []
        for name, user, group in USERS:
            token = secrets.token_hex(16)
            tokens.append(f'{token},{user},{name},"{group}"\n')
            self._write(f"pki/{name}.kubeconfig", json.dumps({
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": f"https://{NODE_IP}:6443", "certificate-authority": str(self.pki / "ca.crt")}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}))
        self._write("pki/tokens.csv", "".join(tokens))

    def _write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, name, *argv, stdout=None):
        """A process in the cluster's network that is gone when down() is done, or this process is; its log is logs/NAME.log."""
        with open(self.logs / f"{name}.log", "w") as log:
            self._children[name] = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.enter(), *map(str, argv)],
                                                    stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, text=True)
        return self._children[name]

    def _start_control_plane(self):
        pki = self.pki
        self.start("etcd", "etcd", "--data-dir", self.folder / "etcd", "--unsafe-no-fsync", "--log-level", "warn", "--logger", "zap",
                    "--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
                    "--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
                    "--initial-cluster", "default=http://127.0.0.1:2380")
        self.start("kube-apiserver", BIN / "kube-apiserver", "--etcd-servers", "http://127.0.0.1:2379", "--secure-port", "6443",
                    "--advertise-address", NODE_IP, "--bind-address", "0.0.0.0", "--tls-cert-file", pki / "api.crt",
                    "--tls-private-key-file", pki / "api.key", "--token-auth-file", pki / "tokens.csv", "--authorization-mode", "Node,RBAC",
                    "--enable-admission-plugins", "NodeRestriction", "--service-cluster-ip-range", SERVICE_CIDR,
                    "--service-account-issuer", "https://kubernetes.default.svc.cluster.local", "--service-account-key-file", pki / "sa.pub",
                    "--service-account-signing-key-file", pki / "sa.key", "--kubelet-preferred-address-types", "InternalIP",
                    # Debian's etcd 3.4 lacks what these need, and KWOK's watches are made them by the server: it refused every one of them, and
                    # KWOK lived on lists, ever further apart.
                    "--feature-gates", "WatchList=false")
        wait_for("kube-apiserver is ready", lambda: self.alive("kube-apiserver") and self._probe(BIN / "kubectl", "get", "--raw", "/readyz"))
        self.start("kubectl-proxy", *self.client(), "proxy", "--unix-socket", self._api)
        self.start("kube-controller-manager", BIN / "kube-controller-manager", "--kubeconfig", pki / "controllers.kubeconfig",
                    "--service-account-private-key-file", pki / "sa.key", "--root-ca-file", pki / "ca.crt",
                    "--use-service-account-credentials", "--allocate-node-cidrs", "--cluster-cidr", POD_CIDR,
                    "--service-cluster-ip-range", SERVICE_CIDR, "--leader-elect=false", "--bind-address", "127.0.0.1",
                   "--horizontal-pod-autoscaler-sync-period", "2s",
                   "--node-monitor-grace-period", f"{LONG}s")  # a node that a busy machine keeps from its heartbeat is not lost
        self.start("kube-scheduler", BIN / "kube-scheduler", "--kubeconfig", pki / "scheduler.kubeconfig", "--leader-elect=false",
                    "--bind-address", "127.0.0.1")

    def _start_dns(self):
        """CoreDNS as a process on the node's address, behind the usual Service."""
        corefile = self._write("Corefile", f""".:53 {{
    bind {NODE_IP}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {self.admin}
        ttl 5
    }}
    cache 5
}}
""")
        self.start("coredns", BIN / "coredns", "-conf", corefile)
        ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
                    "spec": {"clusterIP": DNS_SERVICE, "ports": ports}},
                   {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
                    "metadata": {"name": "kube-dns-1", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
                    "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}]})

    def apply(self, *objects):
        self.kubectl("apply", "--validate=false", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def make_namespace(self, name):
        """One that takes only pods of Pod Security `restricted`, and takes them: the account that they run as is there."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}}})
        wait_for(f"namespace {name} has its account", lambda: self.ask(f"/api/v1/namespaces/{name}/serviceaccounts/default"))

    def alive(self, name):
        assert self._children[name].poll() is None, f"{name} ended:\n{self.tail(name)}"
        return True

    def tail(self, name, lines=15):
        return "\n".join((self.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def _start_node(self):
        self._write_node_files()
        settings = {f"/proc/sys/{path}": self.folder / path.replace("/", ".") for path in SYSCTLS}
        # Both in one mount and pid namespace of their own: with the first process all end, and no mount or socket is left.
        script = self._write("node.sh", f"""#!/bin/sh
mount --make-rprivate /
for path in /run/netns /run/containerd /var/lib/cni /var/lib/kubelet /var/log/containers; do mkdir -p $path; mount -t tmpfs tmpfs $path; done
{"".join(f"cp {path} {copy}; mount --bind {copy} {path}{chr(10)}" for path, copy in settings.items())}
containerd --config {self.folder}/containerd.toml >{self.logs}/containerd.log 2>&1 &
until ctr --address {self.cri} version >/dev/null 2>&1; do sleep 0.1; done
{BIN}/kubelet --config {self.folder}/kubelet.json --kubeconfig {self.pki}/kubelet.kubeconfig --hostname-override {NODE} --node-ip {NODE_IP} \\
  --root-dir {self.folder}/kubelet --cert-dir {self.folder}/kubelet/pki >{self.logs}/kubelet.log 2>&1 &
wait
""")
        self.start("node", "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", script)
        self.start("kube-proxy", BIN / "kube-proxy", "--config", self.folder / "proxy.json")

    def _write_node_files(self):
        self._write("resolv.conf", f"nameserver {DNS_SERVICE}\n")
        self._write("containerd.toml", f"""version = 2
root = "{self.folder}/containerd/root"
state = "{self.folder}/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
                    "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{self.cri}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true   # root may lack CAP_SYS_RESOURCE here, and runc could not set a sandbox's -998
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.folder}/cni"
""")
        self._write("cni/10-ptp.conflist", json.dumps({"cniVersion": "0.4.0", "name": "tandem", "plugins": [
            {"type": "ptp", "ipMasq": True, "ipam": {"type": "host-local", "dataDir": str(self.folder / "ipam"),
                                                     "ranges": [[{"subnet": "10.244.200.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}))
        self._write("kubelet.json", json.dumps({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failCgroupV1": False, "cgroupDriver": "cgroupfs",
            "failSwapOn": False, "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "address": NODE_IP, "clusterDNS": [DNS_SERVICE], "clusterDomain": "cluster.local",
            "resolvConf": str(self.folder / "resolv.conf"), "containerRuntimeEndpoint": f"unix://{self.cri}",
            "podLogsDir": str(self.folder / "podlogs"), "enforceNodeAllocatable": [], "imageGCHighThresholdPercent": 100, "maxPods": 60,
            "syncFrequency": "2s",  # how long a replaced Secret takes to reach a pod's files; 1 min by default
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"}}))
        self._write("proxy.json", json.dumps({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
            "clientConnection": {"kubeconfig": str(self.pki / "proxy.kubeconfig")}, "clusterCIDR": POD_CIDR, "hostnameOverride": NODE,
            "bindAddress": NODE_IP, "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
            # 0: leave the machine's conntrack settings alone; a network namespace cannot set them.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s", "udpTimeout": "0s",
                          "udpStreamTimeout": "0s"}}))

    def _node_ready(self):
        self.alive("node")
        return is_ready(self.ask(f"/api/v1/nodes/{NODE}") or {})

    # --- down ---

    def down(self, keep_logs=False):
        for child in self._children.values():
            # `unshare` does not hand a SIGTERM on; its death takes the node's whole pid namespace along.
            child.send_signal(signal.SIGKILL)
        for child in self._children.values():
            child.wait()
        wait_for("no mount of the node is left", lambda: str(self.folder) not in pathlib.Path("/proc/mounts").read_text(), seconds=60)
        if keep_logs:
            self._write("kept", "")
        wait_for("nothing of it is left", lambda: clear() or not left_over(), seconds=60)  # control groups outlast their last process by a moment
        self._lock.close()


if __name__ == "__main__":
    # kube.py: takes away what a run that was killed has left, unless another runs.
    with contextlib.suppress(BlockingIOError), lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
        clear()
