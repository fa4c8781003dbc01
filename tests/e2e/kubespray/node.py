#!/usr/bin/env python3
"""Stands for the programs of a Kubernetes node: an API server that knows nodes, a kubelet that reports
its own every second, the calls of kubectl that anybody makes, and an etcdctl that knows its members.

node.py start api IP | start kubelet | start containerd | kubectl IP ... | etcdctl ...

Where the API is a real one it keeps etcd and kube-apiserver running, the kubelet reports to it by its own
certificate, kubectl is the real one, and etcdctl asks the members.

node.py start etcd | start kube-apiserver | real-kubectl ... | real-etcdctl ...

node.py boot starts what the host had before.
"""

import fcntl
import http.client
import json
import os
import platform
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 6443
# A kubelet that was not heard of for so long makes its node NotReady.
PATIENCE = 30
CONFIG = "/etc/kubernetes/kubelet.json"
MEMBERS = "/etc/kubernetes/etcd.json"
DRAINED = "/var/lib/standin/drained"
ADMIN = "/etc/kubernetes/admin.conf"
BOOTED = "/run/standin-boot"
# The real programs, and how they are run.
PROGRAMS = "/usr/local/lib/standin"


def api(ip):
    nodes = {}
    # What others than the kubelet say of a node: it outlives every report.
    said = {}

    class Handler(BaseHTTPRequestHandler):
        def body(self):
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        def do_PUT(self):
            node = self.body()
            nodes[node["name"]] = (time.monotonic(), node)
            said.setdefault(node["name"], {"cordoned": False, "annotations": {}})
            self.answer({})

        def do_PATCH(self):
            name = self.path.split("/")[-1]
            if name not in nodes:
                return self.answer({}, 404)
            change = self.body()
            if "cordoned" in change:
                said[name]["cordoned"] = change["cordoned"]
            for key, value in change.get("annotations", {}).items():
                said[name]["annotations"][key] = value
                if value is None:
                    del said[name]["annotations"][key]
            self.answer({})

        def do_DELETE(self):
            name = self.path.split("/")[-1]
            said.pop(name, None)
            self.answer({}, 200 if nodes.pop(name, None) else 404)

        def do_GET(self):
            now = time.monotonic()
            items = [item(node, now - heard, said[name]) for name, (heard, node) in nodes.items()]
            self.answer({"kind": "List", "items": items})

        def answer(self, value, status=200):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    ThreadingHTTPServer((ip, PORT), Handler).serve_forever()


def item(node, age, said):
    taints = []
    for taint in node["taints"]:
        pair, effect = taint.rsplit(":", 1)
        key, _, value = pair.partition("=")
        taints.append({"key": key, "value": value, "effect": effect})
    spec = {"taints": taints}
    if said["cordoned"]:
        spec["unschedulable"] = True
    return {
        "metadata": {
            "name": node["name"],
            "labels": node["labels"],
            "annotations": said["annotations"],
        },
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if age < PATIENCE else "Unknown"}],
            "nodeInfo": {"kubeletVersion": node["version"], "bootID": node["boot"]},
        },
    }


def config():
    with open(CONFIG) as file:
        return json.load(file)


def call(ip, method, path, value=None):
    data = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(f"http://{ip}:{PORT}{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()


def kubelet():
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    if config()["real_api"]:
        report_for_ever(boot)
    while True:
        node = config() | {"boot": boot}
        for master in node["masters"]:
            try:
                call(master, "PUT", "/nodes", node)
            except OSError:
                pass  # It is being started, or gone; the next round tells it.
        time.sleep(1)


def report_for_ever(boot):
    """Registers the node and says how it is, as a kubelet does: to the first master that answers."""
    node = config()
    here = ssl.create_default_context(cafile="/etc/kubernetes/ssl/ca.crt")
    here.load_cert_chain("/var/lib/kubelet/pki/kubelet-client-current.pem")
    since = now()
    while True:
        for master in node["masters"]:
            try:
                report(master, here, node, status(node, boot, since))
                break
            except (OSError, http.client.HTTPException):
                pass  # It is being started, or gone; another one may answer.
        time.sleep(2)


def report(master, context, node, status):
    api = http.client.HTTPSConnection(master, PORT, timeout=5, context=context)

    def say(method, path, kind, value):
        api.request(method, path, json.dumps(value), {"Content-Type": kind})
        answer = api.getresponse()
        answer.read()
        return answer.status

    try:
        path = f"/api/v1/nodes/{node['name']}/status"
        patch = ("PATCH", path, "application/strategic-merge-patch+json", {"status": status})
        if say(*patch) == 404:
            labels = {"kubernetes.io/hostname": node["name"], "kubernetes.io/os": "linux"}
            new = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": node["name"], "labels": labels}}
            say("POST", "/api/v1/nodes", "application/json", new)
            say(*patch)
    finally:
        api.close()


def status(node, boot, since):
    machine = platform.uname()
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "a kubelet of the tests is posting ready status",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": since,
    }
    info = {
        "architecture": "amd64" if machine.machine == "x86_64" else "arm64",
        "bootID": boot,
        "containerRuntimeVersion": "none://0",
        "kernelVersion": machine.release,
        "kubeProxyVersion": node["version"],
        "kubeletVersion": node["version"],
        "machineID": node["name"],
        "operatingSystem": "linux",
        "osImage": "a host of the tests",
        "systemUUID": node["name"],
    }
    addresses = [{"type": "InternalIP", "address": node["ip"]}, {"type": "Hostname", "address": node["name"]}]
    return {"conditions": [ready], "nodeInfo": info, "addresses": addresses}


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def service(name):
    """Keeps a program running, as systemd would."""
    while True:
        with open(f"/var/log/{name}.log", "ab") as log:
            subprocess.run([f"{PROGRAMS}/run-{name}"], stdout=log, stderr=log)
        time.sleep(1)


def real_kubectl(args):
    """The real one. Its answer to `version` has the version that the API server stands for; the true one is
    beside it. No other answer is touched."""
    command = [f"{PROGRAMS}/kubectl"] + args
    if [word for word in args if not word.startswith("--")] != ["version"] or "--output=json" not in args:
        os.execv(command[0], command)
    said = subprocess.run(command, stdout=subprocess.PIPE)
    if said.returncode:
        sys.exit(said.returncode)
    versions = json.loads(said.stdout)
    server = versions["serverVersion"]
    versions["serverVersion"] = server | {"gitVersion": config()["version"], "really": server["gitVersion"]}
    print(json.dumps(versions))


def containerd():
    # Its layers are on a tmpfs: the host's own disk may be an overlay, on which there can be no other.
    config = "/run/containerd.toml"
    with open(config, "w") as file:
        file.write('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    os.execvp("containerd", ["containerd", "--config", config, "--root", "/run/containerd-root"])


def kubectl(ip, args):
    words = [word for word in args if not word.startswith("--")]
    if words == ["get", "nodes"]:
        return print(call(ip, "GET", "/nodes"))
    if words == ["version"]:
        call(ip, "GET", "/nodes")
        return print(json.dumps({"serverVersion": {"gitVersion": config()["version"]}}))
    if words[:2] == ["get", "node"]:
        items = json.loads(call(ip, "GET", "/nodes"))["items"]
        found = [one for one in items if one["metadata"]["name"] == words[2]]
        if not found and "--ignore-not-found" not in args:
            sys.exit("Error from server (NotFound)")
        return print("".join(json.dumps(one) for one in found))
    # One API in several servers that do not know each other: each is told.
    if words[:1] == ["cordon"]:
        return tell("PATCH", words[1], {"cordoned": True})
    if words[:1] == ["uncordon"]:
        return tell("PATCH", words[1], {"cordoned": False})
    if words[:2] == ["annotate", "node"]:
        key, sign, value = words[3].partition("=")
        change = {key: value} if sign else {key.removesuffix("-"): None}
        return tell("PATCH", words[2], {"annotations": change})
    if words[:1] == ["drain"]:
        if os.path.exists(f"/var/lib/standin/undrainable-{words[1]}"):
            sys.exit("error: Cannot evict pod as it would violate the pod's disruption budget.")
        with open(DRAINED, "a") as file:
            file.write(words[1] + "\n")
        return tell("PATCH", words[1], {"cordoned": True})
    if words[:2] == ["delete", "node"]:
        return tell("DELETE", words[2])
    sys.exit(f"unknown command: {args}")


def tell(method, name, value=None):
    done = 0
    for master in config()["masters"]:
        try:
            call(master, method, f"/nodes/{name}", value)
            done += 1
        except urllib.error.HTTPError as error:
            sys.exit(f"Error from server ({error.code}): nodes {name!r}")
        except OSError:
            pass  # Gone, as a machine can be.
    if not done:
        sys.exit("The connection to the server was refused")


def etcdctl(args):
    options = dict(word.split("=", 1) for word in args if word.startswith("--") and "=" in word)
    for file in (options["--cacert"], options["--cert"], options["--key"]):
        os.stat(file)
    with open(MEMBERS) as file:
        members = json.load(file)
    words = [word for word in args if not word.startswith("--")]
    health = [{"endpoint": f"https://{m['ip']}:2379", "health": answers(m["ip"])} for m in members]
    if sum(one["health"] for one in health) <= len(members) // 2:
        sys.exit("Error: context deadline exceeded")
    if words == ["member", "list"]:
        of = [
            {
                "ID": m["id"],
                "name": m["name"],
                "peerURLs": [f"https://{m['ip']}:2380"],
                "clientURLs": [f"https://{m['ip']}:2379"],
            }
            for m in members
        ]
        print(json.dumps({"header": {}, "members": of}))
    elif words == ["endpoint", "health"] and "--cluster" in args:
        print(json.dumps(health))
        sys.exit(0 if all(one["health"] for one in health) else 1)
    else:
        sys.exit(f"unknown command: {args}")


def real_etcdctl(args):
    """Asks the members, in JSON: what etcdctl asks by gRPC. There is no etcdctl beside our etcd."""
    options = dict(word.split("=", 1) for word in args if word.startswith("--") and "=" in word)
    words = [word for word in args if not word.startswith("--")]
    here = ssl.create_default_context(cafile=options["--cacert"])
    here.load_cert_chain(options["--cert"], options["--key"])

    def ask(url, value=None):
        data = None if value is None else json.dumps(value).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=5, context=here) as answer:
            return json.load(answer)

    def healthy(url):
        try:
            return ask(f"{url}/health")["health"] == "true"
        except (OSError, ValueError):
            return False

    try:
        known = ask(f"{options['--endpoints']}/v3/cluster/member/list", {})
    except OSError as error:
        sys.exit(f"Error: {error}")
    if words == ["member", "list"]:
        print(json.dumps(known))
    elif words == ["endpoint", "health"] and "--cluster" in args:
        urls = [url for member in known["members"] for url in member.get("clientURLs", [])]
        health = [{"endpoint": url, "health": healthy(url)} for url in urls]
        print(json.dumps(health))
        sys.exit(0 if all(one["health"] for one in health) else 1)
    else:
        sys.exit(f"unknown command: {args}")


def answers(ip):
    try:
        socket.create_connection((ip, PORT), timeout=1).close()
        return True
    except OSError:
        return False


def start(role, *args):
    """Leaves a process behind, unless it is there."""
    # After a boot several may log in at once.
    with open("/run/standin.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        leave_behind(role, *args)


def leave_behind(role, *args):
    pid_file = f"/run/standin-{role}.pid"
    try:
        with open(pid_file) as file:
            os.kill(int(file.read()), 0)
        return
    except (OSError, ValueError):
        pass
    pid = os.fork()
    if pid:
        with open(pid_file, "w") as file:
            file.write(str(pid))
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.closerange(3, 1024)
    if os.path.exists(f"{PROGRAMS}/run-{role}"):
        service(role)
    {"api": api, "kubelet": kubelet, "containerd": containerd}[role](*args)


def boot():
    for role in ("etcd", "kube-apiserver"):
        if os.path.exists(f"{PROGRAMS}/run-{role}"):
            start(role)
    if os.path.exists(CONFIG):
        node = config()
        if os.path.exists(ADMIN) and not node["real_api"]:
            start("api", node["ip"])
        start("kubelet")
    open(BOOTED, "w").close()


if __name__ == "__main__":
    if sys.argv[1] == "start":
        start(*sys.argv[2:])
    elif sys.argv[1] == "boot":
        boot()
    elif sys.argv[1] == "real-kubectl":
        real_kubectl(sys.argv[2:])
    elif sys.argv[1] == "real-etcdctl":
        real_etcdctl(sys.argv[2:])
    elif sys.argv[1] == "etcdctl":
        etcdctl(sys.argv[2:])
    else:
        kubectl(sys.argv[2], sys.argv[3:])
