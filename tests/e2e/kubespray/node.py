#!/usr/bin/env python3
"""Stands for the programs of a Kubernetes node: an API server that knows nodes, a kubelet that reports
its own every second, and the one call of kubectl that anybody makes.

node.py start api IP | start kubelet | start containerd | kubectl IP ... get nodes --output=json
"""

import json
import os
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 6443
# A kubelet that was not heard of for so long makes its node NotReady.
PATIENCE = 30


def api(ip):
    nodes = {}

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            node = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            nodes[node["name"]] = (time.monotonic(), node)
            self.answer({})

        def do_GET(self):
            now = time.monotonic()
            self.answer({"items": [item(node, now - heard) for heard, node in nodes.values()]})

        def answer(self, value):
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    ThreadingHTTPServer((ip, PORT), Handler).serve_forever()


def item(node, age):
    taints = []
    for taint in node["taints"]:
        pair, effect = taint.rsplit(":", 1)
        key, _, value = pair.partition("=")
        taints.append({"key": key, "value": value, "effect": effect})
    return {
        "metadata": {"name": node["name"], "labels": node["labels"]},
        "spec": {"taints": taints},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if age < PATIENCE else "Unknown"}],
            "nodeInfo": {"kubeletVersion": node["version"]},
        },
    }


def kubelet():
    while True:
        with open("/etc/kubernetes/kubelet.json") as file:
            node = json.load(file)
        for master in node["masters"]:
            url = f"http://{master}:{PORT}/nodes"
            request = urllib.request.Request(url, json.dumps(node).encode(), method="PUT")
            try:
                urllib.request.urlopen(request, timeout=5).read()
            except OSError:
                pass  # It is being started, or gone; the next round tells it.
        time.sleep(2)


def containerd():
    # Its layers are on a tmpfs: the host's own disk may be an overlay, on which there can be no other.
    config = "/run/containerd.toml"
    with open(config, "w") as file:
        file.write('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    os.execvp("containerd", ["containerd", "--config", config, "--root", "/run/containerd-root"])


def kubectl(ip, args):
    if args[-3:] != ["get", "nodes", "--output=json"]:
        sys.exit(f"unknown command: {args}")
    print(urllib.request.urlopen(f"http://{ip}:{PORT}/nodes", timeout=10).read().decode())


def start(role, *args):
    """Leaves a process behind, unless it is there."""
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
    {"api": api, "kubelet": kubelet, "containerd": containerd}[role](*args)


if __name__ == "__main__":
    if sys.argv[1] == "start":
        start(*sys.argv[2:])
    else:
        kubectl(sys.argv[2], sys.argv[3:])
