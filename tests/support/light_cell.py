"""A cell command without its imports, for engines that start a process per cell: real about claims and run folders.

`python -m support.light_cell ROOT NAME SEED SECONDS`
"""

import json
import os
import sys
import time
from pathlib import Path

from attn_lightning.locks import Claim
from attn_lightning.run_folder import read_metrics

HELD = 75


def main(root: str, name: str, seed: str, seconds: str) -> int:
    folder = Path(root, name, f"seed_{seed}")
    try:
        # Kept until the end of the process.
        claim = Claim(Path(root, ".claims", f"{name}.seed_{seed}.lock"))
    except BlockingIOError:
        print("another process has it")
        return HELD
    folder.mkdir(parents=True, exist_ok=True)
    if read_metrics(folder).get("status") == "complete":
        return 0
    (folder / "config.yaml").write_text(json.dumps({"seed_everything": int(seed)}))
    note(folder / "starts.txt")
    time.sleep(float(seconds))
    note(folder / "ends.txt")
    record = folder / f".{os.getpid()}"
    record.write_text(json.dumps({"status": "complete"}))
    record.replace(folder / "metrics.json")
    claim.release()
    return 0


def note(path: Path) -> None:
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
