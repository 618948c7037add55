"""Two nodes, each a process that was started from outside: what is prepared once is prepared once."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.ports import free_ports

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]

NOTED = """
    import os, sys
    from pathlib import Path
    from attn_lightning.data import datamodule
    from attn_lightning.data.embeddings import trained

    def noted(function, name):
        def call(*arguments, **options):
            with Path(os.environ["NOTES"]).open("a") as file:
                file.write(name + "\\n")
            return function(*arguments, **options)
        return call

    datamodule.prepare = noted(datamodule.prepare, "texts")
    trained.run_fasttext = noted(trained.run_fasttext, "vectors")
    from attn_lightning.cli import main
    sys.exit(main(sys.argv[1:]))
"""


def test_data_is_prepared_once_in_a_shared_cache(tmp_path):
    script, notes, (port,) = tmp_path / "noted.py", tmp_path / "notes", free_ports(1)
    script.write_text(textwrap.dedent(NOTED))
    command = [
        sys.executable, str(script), "fit", "--config", str(REPOSITORY / "experiments/vanilla_planted.yaml"),
        "--data.train_documents=48", "--data.validation_documents=17", "--data.test_documents=17",
        "--data.max_length=20", "--data.embeddings=FastTextEmbeddings", "--data.embeddings.dimension=8",
        "--model.backbone.encoder.hidden_size=4", "--run.control=false", "--run.suite=none", "--run.report=false",
        "--trainer.max_epochs=1", "--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp",
        "--trainer.accelerator=cpu", f"--run.root={tmp_path / 'runs'}",
    ]  # fmt: skip
    nodes = []
    for rank in range(2):
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank), "LOCAL_RANK": "0"}
        own = {"ATTN_LIGHTNING_CACHE": str(tmp_path / "cache"), "NOTES": str(notes), "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **variables, **own, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        nodes.append(
            subprocess.Popen(
                command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    said = [node.communicate(timeout=280)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert notes.read_text().split() == ["texts", "vectors"]
    assert [path.name for path in (tmp_path / "runs" / "vanilla_planted").iterdir()] == ["version_0"]
    assert not list((tmp_path / "cache").glob("**/.*"))
