"""Starting a command under torchrun, on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(processes: int) -> list[str]:
    return ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_addr=127.0.0.1",
            f"--master_port={free_port()}"]


def started(words: list[str]) -> subprocess.CompletedProcess[str]:
    """`python WORDS`, ended. SIGTERM, unlike SIGKILL, lets torchrun end its processes where they hang."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        out, said = process.communicate(timeout=150)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, said = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, said)
