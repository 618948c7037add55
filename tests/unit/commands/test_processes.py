"""Which process decides, and how the others learn it."""

import json
import os
import socket
import subprocess
import sys

import pytest
from jsonargparse import Namespace

from attn_lightning.commands.processes import DECISION_VARIABLE, Agreement, Place, place
from attn_lightning.errors import ConfigurationError, DataFormatError

ADDRESS = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}
TORCHRUN = {
    **ADDRESS,
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NODELIST": "node[3-4]", "SLURM_JOB_NAME": "train", "SLURM_LOCALID": "0"}


def at(environment, devices=1, nodes=1):
    return place(Namespace(devices=devices, num_nodes=nodes), dict(environment))


@pytest.mark.parametrize("devices", [1, 2, "auto"])
def test_a_process_that_was_started_alone_is_the_first(devices):
    assert at({}, devices) == Place(first=True)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "size"),
    [
        (lambda rank: {**ADDRESS, "NODE_RANK": rank}, 1, 2, 2),
        (lambda rank: {**ADDRESS, "NODE_RANK": rank}, 4, 2, 2),
        (lambda rank: {**ADDRESS, "LOCAL_RANK": rank}, 2, 1, 2),
        (lambda rank: {**ADDRESS, "RANK": rank, "WORLD_SIZE": "2"}, 2, 1, 2),
        (lambda rank: {**ADDRESS, "RANK": rank, "WORLD_SIZE": "2"}, 1, 2, 2),
        (lambda rank: {**TORCHRUN, "RANK": rank}, 2, 1, 2),
        (lambda rank: {**SLURM, "SLURM_NTASKS": "2", "SLURM_PROCID": rank}, 2, 1, 2),
    ],
)
def test_every_way_of_starting_has_one_first_process(environment, devices, nodes, size, rank):
    found = at(environment(str(rank)), devices, nodes)
    assert (found.first, found.size) == (rank == 0, size)
    other = at(environment(str(1 - rank)), devices, nodes)
    assert found.store == other.store
    assert found.store is not None


def test_rank_alone_is_translated_for_lightning():
    environment = {**ADDRESS, "RANK": "5", "WORLD_SIZE": "8"}
    place(Namespace(devices=4, num_nodes=2), environment)
    assert (environment["NODE_RANK"], environment["LOCAL_RANK"]) == ("1", "1")


def test_the_store_of_torchrun_is_shared_and_its_attempts_are_told_apart():
    found = at({**TORCHRUN, "RANK": "0", "TORCHELASTIC_RESTART_COUNT": "2"})
    assert found.shared
    assert found.store == ("127.0.0.1", 29999)
    assert found.job.endswith("2")


def test_tasks_of_slurm_meet_at_the_first_node():
    found = at({**SLURM, "SLURM_NTASKS": "2", "SLURM_PROCID": "1"})
    assert found.store is not None
    assert found.store[0] == "node3"
    assert at({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == Place(first=True)


@pytest.mark.parametrize("environment", [{"NODE_RANK": "1"}, {"MASTER_ADDR": "127.0.0.1", "NODE_RANK": "0"}])
def test_without_an_address_it_is_said_what_is_missing(environment):
    with pytest.raises(ConfigurationError, match="MASTER_PORT"):
        at(environment, nodes=2)


def test_children_inherit_the_decision_and_nobody_else(monkeypatch):
    monkeypatch.setenv(DECISION_VARIABLE, f'{os.getppid()} {{"folder": "x"}}')
    found = place(Namespace(devices=2, num_nodes=1))
    assert found.child
    assert Agreement(found).reach(lambda: pytest.fail("decides itself")) == {"folder": "x"}
    monkeypatch.setenv(DECISION_VARIABLE, f'{os.getppid() + 1} {{"folder": "x"}}')
    assert not place(Namespace(devices=2, num_nodes=1)).child


@pytest.mark.parametrize("refusal", [ConfigurationError, DataFormatError, OSError])
def test_whatever_stops_the_first_process_is_told_to_the_others(monkeypatch, refusal):
    monkeypatch.delenv(DECISION_VARIABLE, raising=False)
    told = []
    agreement = Agreement(Place(first=True))
    monkeypatch.setattr(agreement, "_tell", told.append)

    def decide():
        raise refusal("the disk is full")

    with pytest.raises(refusal):
        agreement.reach(decide)
    assert told == [{"error": "the disk is full"}]


ASKS = """
import json, sys
from jsonargparse import Namespace
from attn_lightning.commands.processes import Agreement, place
print(json.dumps(Agreement(place(Namespace(devices=1, num_nodes=2))).reach(lambda: {"wrong": 1})))
"""


@pytest.mark.slow
@pytest.mark.parametrize("refusal", [None, DataFormatError])
def test_another_node_learns_what_the_first_has_decided(monkeypatch, refusal):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    monkeypatch.delenv(DECISION_VARIABLE, raising=False)
    environment = {**os.environ, **address, "NODE_RANK": "1"}
    other = subprocess.Popen(
        [sys.executable, "-c", ASKS], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def decide():
        if refusal is not None:
            raise refusal("Expected another name.")
        return {"folder": "y"}

    agreement = Agreement(at({**address, "NODE_RANK": "0"}, nodes=2))
    if refusal is not None:
        with pytest.raises(refusal):
            agreement.reach(decide)
    else:
        assert agreement.reach(decide) == {"folder": "y"}
    agreement.close()
    assert DECISION_VARIABLE not in os.environ
    out, err = other.communicate(timeout=120)
    if refusal is not None:
        assert "Expected another name." in err
    else:
        assert json.loads(out) == {"folder": "y"}
