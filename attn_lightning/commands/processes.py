"""Which process of a job this is, and how all of them come to one decision before Lightning connects them.

A job may be started in four ways: Lightning starts the processes of its node itself, by running the same command again;
`torchrun`; SLURM's `srun`; or by hand, with `NODE_RANK`, `LOCAL_RANK` or `RANK`. Only the first process chooses the run
folder. Its own children inherit the choice; all others ask for it over the network, because a file that was left by an
earlier job could not be told from an answer.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

from attn_lightning.errors import AttnLightningError, ConfigurationError

DECISION_VARIABLE = "ATTN_LIGHTNING_DECISION"
"""Hands the decision to the processes that Lightning starts."""

_LEFT_BEHIND = (DECISION_VARIABLE, "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Variables that a run sets for its processes; the next one in the same program would take itself for one of them."""

_PATIENCE = timedelta(minutes=10)
"""The first process may be late: a cold file system takes minutes to read a Python environment."""

_LINGER_SECONDS = 10.0
_PORTS = range(20_000, 32_000)  # below those that Linux gives to outgoing connections

Decision = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where this process stands in its job.

    Attributes:
        first: whether it decides for all.
        child: whether Lightning started it in this job, so that it inherited the decision.
        size: processes that decide together: one per node where Lightning starts the others.
        store: address of the store of `torchrun`, or one made from the job's own, as (host, port); None if this
            process is alone.
        shared: whether the store exists already.
        job: what tells this job from others that use the same store.
        rank: among those that decide together.
    """

    first: bool
    child: bool = False
    size: int = 1
    store: tuple[str, int] | None = None
    shared: bool = False
    job: str = ""
    rank: int = 0


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def is_one_of_several(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether whatever started this process started others with the same command.

    Args:
        environment: the variables of `torchrun`, of SLURM's `srun`, or those that were set by hand.
    """
    interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    counts = [environment.get("WORLD_SIZE", ""), "" if interactive else environment.get("SLURM_NTASKS", "")]
    return any(count.isdigit() and int(count) > 1 for count in counts)


def place(trainer: Namespace, environment: MutableMapping[str, str] = os.environ) -> Place:
    """Read the place of this process from the variables of whatever started it.

    Args:
        trainer: `num_nodes` and `devices` as they were configured.
        environment: the variables. Where only `RANK` is given, `NODE_RANK` and `LOCAL_RANK` are added, which is what
            Lightning reads.

    Raises:
        ConfigurationError: several processes were started without `MASTER_ADDR` and `MASTER_PORT`.
    """
    inherited = environment.get(DECISION_VARIABLE, "").partition(" ")[0]
    if inherited == str(os.getppid()):
        return Place(first=False, child=True)
    # A shell within a job has its variables too, and Lightning takes no notice of them there either.
    interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if "TORCHELASTIC_RUN_ID" in environment:
        return _of_torchrun(environment)
    if "SLURM_NTASKS" in environment and "SLURM_PROCID" in environment and not interactive:
        return _of_slurm(environment)
    return _of_variables(trainer, environment)


def _of_torchrun(environment: MutableMapping[str, str]) -> Place:
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    # After a failure the agent starts all processes again, with the store of the first attempt.
    job = f"{environment['TORCHELASTIC_RUN_ID']} {environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    shared = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = (host, port) if shared else (host, _port(f"{host}:{port}"))
    return Place(rank == 0, size=size, store=store if size > 1 else None, shared=shared, job=job, rank=rank)


def _of_slurm(environment: MutableMapping[str, str]) -> Place:
    rank, size = int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
    if size == 1:
        return Place(first=True)
    host = environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(
        environment.get("SLURM_NODELIST", "127.0.0.1")
    )
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    job = " ".join(environment.get(name, "") for name in names)
    return Place(rank == 0, size=size, store=(host, _port(job)), job=job, rank=rank)


def _of_variables(trainer: Namespace, environment: MutableMapping[str, str]) -> Place:
    devices = int(trainer.devices) if str(trainer.devices).isdigit() else 1
    nodes = int(trainer.num_nodes)
    if "RANK" in environment and "WORLD_SIZE" in environment:
        node, local = divmod(int(environment["RANK"]), devices)
        environment.setdefault("NODE_RANK", str(node))
        environment.setdefault("LOCAL_RANK", str(local))
    node = int(environment.get("NODE_RANK") or environment.get("GROUP_RANK") or 0)
    local = int(environment.get("LOCAL_RANK") or 0)
    by_hand = "LOCAL_RANK" in environment
    # Where Lightning starts the others of a node, the processes of this job that can ask are one per node.
    rank, size = (node * devices + local, nodes * devices) if by_hand else (node, nodes)
    size = max(size, int(environment.get("WORLD_SIZE", 1))) if by_hand else size
    if size == 1 and rank == 0:
        return Place(first=True)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        raise ConfigurationError(
            f"Expected {' and '.join(missing)} in the environment of a job of {size} processes that were started from "
            "outside, but got none; give all of them the address of the first node and a free port on it."
        )
    host, port = environment["MASTER_ADDR"], environment["MASTER_PORT"]
    return Place(rank == 0, size=size, store=(host, _port(f"{host}:{port}")), rank=rank)


def _port(job: str) -> int:
    """A port that all processes of a job derive alike; Lightning uses the job's own for itself."""
    # Python's `hash` of a string differs from process to process.
    return _PORTS[int.from_bytes(hashlib.sha256(job.encode()).digest()[:4]) % len(_PORTS)]


class Agreement:
    """The decision of the first process, known to all.

    Args:
        place: of this process.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        # Put back at the end, as a program may run several commands one after the other.
        self._before = {name: os.environ.get(name) for name in _LEFT_BEHIND}
        self._server: Any = None
        self._store: Any = None

    def reach(self, decide: Callable[[], Decision]) -> Decision:
        """Decide, or learn what was decided.

        Args:
            decide: called in the first process only; gives plain values.

        Raises:
            ConfigurationError: the first process refuses or has failed, or it cannot be reached.
        """
        if self.place.rank:
            # Lightning finds out when it makes the trainer, and takes every first process of a node for the first.
            rank_zero_only.rank = self.place.rank  # type: ignore[attr-defined]
        if self.place.child:
            return self._inherited()
        if not self.place.first:
            return self._asked()
        if self.place.store is not None:
            self._connect()
        try:
            decision = decide()
        # The others must hear of a refusal, a damaged file or a full disk too, or they wait ten minutes for a decision
        # that never comes.
        except (AttnLightningError, OSError) as error:
            self._tell({"error": str(error)})
            raise
        self._tell(decision)
        return decision

    def _inherited(self) -> Decision:
        decision: Decision = json.loads(os.environ[DECISION_VARIABLE].partition(" ")[2])
        return decision

    def _asked(self) -> Decision:
        self._connect()
        decision: Decision = json.loads(self._store.get("decision"))
        # Counted, so that the first process knows when it may take the store away.
        self._store.add("heard", 1)
        if "error" in decision:
            raise ConfigurationError(decision["error"])
        self._hand_down(decision)
        return decision

    def _tell(self, decision: Decision) -> None:
        if self._store is not None:
            self._store.set("decision", json.dumps(decision))
        self._hand_down(decision)

    def _hand_down(self, decision: Decision) -> None:
        os.environ[DECISION_VARIABLE] = f"{os.getpid()} {json.dumps(decision)}"

    def _connect(self) -> None:
        # Only here, because a process that is alone does not need it.
        from torch import distributed

        assert self.place.store is not None
        host, port = self.place.store
        serves = self.place.first and not self.place.shared
        try:
            self._server = distributed.TCPStore(  # type: ignore[attr-defined]
                host, port, is_master=serves, timeout=_PATIENCE, wait_for_workers=False
            )
        except (distributed.DistError, RuntimeError) as error:
            who = "to answer the other processes" if serves else "to reach the first process"
            raise ConfigurationError(
                f"Expected {who} of this job at {host}:{port}, but got: {str(error).splitlines()[0]}; check "
                "MASTER_ADDR, choose another MASTER_PORT, or look what the first process says."
            ) from error
        prefix = f"attn_lightning {self.place.job}"
        self._store = distributed.PrefixStore(prefix, self._server)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Wait until all have heard the decision, because the store ends with this process, and leave no trace."""
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if self._store is None or not self.place.first or self.place.shared:
            return
        until = time.monotonic() + _LINGER_SECONDS
        while time.monotonic() < until and self._store.add("heard", 0) < self.place.size - 1:
            time.sleep(0.05)
