"""The Slurm example, with stand-ins for Slurm's own programs."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "slurm" / "train.sbatch"
STAND_INS = {
    "scontrol": '[ "$1" = show ] && printf "node1\\nnode2\\n" || echo "scontrol $*"',
    "srun": 'shift; SLURM_PROCID=5 SLURM_LOCALID=1 "$@"',
    "exgra-med": 'echo "rank $RANK/$WORLD_SIZE local $LOCAL_RANK at $MASTER_ADDR: $*"; exit $CODE',
}


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (143, True), (1, False)])
def test_every_process_knows_its_place_and_a_stopped_run_is_requeued(
    tmp_path: Path, code: int, requeued: bool
) -> None:
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "x", "SLURM_JOB_ID": "77", "SLURM_NTASKS": "8"}
    environment = os.environ | slurm | {"CODE": str(code)}
    environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPT), "finetune/vqa-rad", "--set", "a.b={c: 1}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "rank 5/8 local 1 at node1: train finetune/vqa-rad --set a.b={c: 1} --resume"
    assert rest == (["scontrol requeue 77"] if requeued else [])
