"""A Weights & Biases backend for tests: what `wandb sweep`, `wandb agent` and an online run need, on the loopback."""

import gzip
import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY, PROJECT = "me", "p"
VIEWER = {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}, "email": "a@b"}
PROJECT_ANSWER = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}


@dataclass
class Sweep:
    """A sweep and the arguments of the trials that no agent has been given."""

    config: str
    waiting: list[dict[str, Any]]
    state: str = "PENDING"
    started: int = 0


@dataclass
class Run:
    """What a run has sent."""

    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


@dataclass
class Backend:
    """The state of the server.

    Attributes:
        stop_after: rows of history after which the run of that name is told to stop, as by a click in the web page.
    """

    port: int = 0
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    stop_after: dict[str, int] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def run(self, name: str) -> Run:
        """The run of this name, made if need be."""
        return self.runs.setdefault(name, Run())

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The data of a GraphQL answer; None for an operation that this server does not know."""
        known = getattr(self, f"on_{operation.lower()}", None)
        with self.lock:
            return None if known is None else known(variables)

    def on_viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": VIEWER}

    def on_serverfeaturesquery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def on_runresumestatus(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"model": {**PROJECT_ANSWER, "bucket": None}}

    def on_upsertbucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("name") or variables["id"]
        if variables.get("config"):
            self.run(name).config = json.loads(variables["config"])
        bucket = {
            "id": f"B{name}", "name": name, "displayName": variables.get("displayName") or name, "config": "{}",
            "sweepName": variables.get("sweep"), "project": PROJECT_ANSWER, "historyLineCount": 0,
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def on_createrunfiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        urls = [{"name": name, "uploadUrl": f"http://127.0.0.1:{self.port}/upload"} for name in variables["files"]]
        return {"createRunFiles": {"runID": f"B{variables['run']}", "uploadHeaders": [], "files": urls}}

    def on_upsertsweep(self, variables: dict[str, Any]) -> dict[str, Any]:
        if variables.get("config"):
            name = f"sweep{len(self.sweeps)}"
            self.sweeps[name] = Sweep(
                variables["config"], list(grid(yaml.safe_load(variables["config"])["parameters"]))
            )
        else:
            name = variables["id"].removeprefix("S")
        self.sweeps[name].state = variables.get("state") or self.sweeps[name].state
        return {"upsertSweep": {"sweep": {"name": name, "project": PROJECT_ANSWER}, "configValidationWarnings": []}}

    def on_sweepwithruns(self, variables: dict[str, Any]) -> dict[str, Any]:
        sweep = self.sweeps.get(variables["sweep"])
        if sweep is None:
            return {"project": {"sweep": None}}
        told = {
            "id": f"S{variables['sweep']}", "name": variables["sweep"], "method": "grid", "state": sweep.state,
            "config": sweep.config, "description": "", "createdAt": "2026-01-01T00:00:00", "heartbeatAt": None,
            "updatedAt": None, "earlyStopJobRunning": False, "bestLoss": None, "controller": None, "scheduler": None,
            "runs": {"edges": []},
        }  # fmt: skip
        return {"project": {"sweep": told}}

    def on_createagent(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = f"A{len(self.agents)}"
        self.agents[name] = variables["sweep"]
        return {"createAgent": {"agent": {"id": name}}}

    def on_heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:
        agent, running = variables["id"], json.loads(variables["runState"])
        name = self.agents[agent]
        sweep, commands = self.sweeps[name], []
        if not running and sweep.waiting:
            arguments = {key: {"value": value} for key, value in sweep.waiting.pop(0).items()}
            run = f"{name}run{sweep.started}"
            sweep.started += 1
            program = yaml.safe_load(sweep.config).get("program")
            commands = [{"type": "run", "run_id": run, "program": program, "args": arguments}]
        elif not running:
            sweep.state, commands = "FINISHED", [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": agent}, "commands": json.dumps(commands)}}

    def stream(self, name: str, contents: dict[str, Any]) -> dict[str, Any]:
        """Take in rows and the summary of a run."""
        with self.lock:
            run = self.run(name)
            for file, part in (contents.get("files") or {}).items():
                if "history" in file:
                    run.history += [json.loads(line) for line in part["content"]]
                elif "summary" in file:
                    run.summary.update(json.loads(part["content"][-1]))
            if contents.get("complete"):
                run.exit_code = contents.get("exitcode")
            stopped = len(run.history) >= self.stop_after.get(name, 10**9)
            return {"exitcode": None, "limits": {}, **({"stopped": True} if stopped else {})}


def grid(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every point of a grid sweep; nested parameters become nested values."""
    axes = []
    for name, content in parameters.items():
        if "parameters" in content:
            values: list[Any] = list(grid(content["parameters"]))
        else:
            values = content["values"] if "values" in content else [content["value"]]
        axes.append([(name, value) for value in values])
    return map(dict, itertools.product(*axes))


class Handler(BaseHTTPRequestHandler):
    """HTTP around a `Backend`, which subclasses hold."""

    protocol_version = "HTTP/1.1"
    backend: Backend

    def log_message(self, *_: Any) -> None:
        """Nothing in the output of the tests."""

    def do_GET(self) -> None:
        self._send({})

    def do_PUT(self) -> None:
        self._body()
        self._send({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith("/graphql"):
            request = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            data = self.backend.answer(operation[1] if operation else "", request.get("variables") or {})
            self._send({"data": data, **({"errors": [{"message": "unknown operation"}]} if data is None else {})})
        elif stream := re.search(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self._send(self.backend.stream(stream[1], json.loads(body)))
        else:
            self._send({})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, contents: dict[str, Any]) -> None:
        body = json.dumps(contents).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Backend]:
    """A backend at `http://127.0.0.1:<port>` while the block runs."""
    backend = Backend()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"backend": backend}))
    server.daemon_threads = True
    backend.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield backend
    finally:
        server.shutdown()
        server.server_close()
