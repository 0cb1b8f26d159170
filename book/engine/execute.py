"""Run a chapter from top to bottom and store what its cells show."""

from __future__ import annotations

import asyncio
import copy
import os
import tempfile

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from papermill.parameterize import parameterize_notebook

from snnmlp_edu.data.settings import cores

PROFILES = ("smoke", "cpu", "gpu", "paper")
SECONDS_A_CELL = {"smoke": 900, "cpu": 7200}  # a cell that hangs must not hang the build with it


class ChapterError(Exception):
    """A cell of a chapter failed; the message names the chapter and the cell and shows the traceback."""


def execute(notebook: NotebookNode, chapter: str, profile: str = "smoke", jobs: int = 1) -> NotebookNode:
    """Execute a chapter's notebook in a fresh kernel and an empty scratch directory.

    The cell that sets `profile` is injected as papermill does it and taken out afterwards: left in, it
    would overrule whoever edits the parameters in the stored notebook.

    Raises:
        ChapterError: a cell failed, ran out of time, or took the kernel with it.
    """
    run = copy.deepcopy(notebook)
    for cell in run.cells:
        cell.metadata.setdefault("tags", [])
    if any("parameters" in cell.metadata.tags for cell in run.cells):
        run.metadata["papermill"] = {}
        run = parameterize_notebook(run, {"profile": profile})
        del run.metadata["papermill"]
    started: list[NotebookNode] = []
    with tempfile.TemporaryDirectory(prefix=f"{chapter}-") as scratch:
        client = NotebookClient(
            run,
            kernel_name="python3",
            timeout=SECONDS_A_CELL.get(profile),
            resources={"metadata": {"path": scratch}},
            record_timing=False,
            coalesce_streams=True,
            shutdown_kernel="immediate",  # all outputs are in; a polite end would take two seconds a chapter
            extra_arguments=["--log-level=ERROR"],  # else each kernel notes that it listens on this machine
            on_cell_start=lambda cell, cell_index: started.append(cell),
        )
        try:
            # An event loop of its own, closed afterwards: several chapters may run at once, each in a thread.
            asyncio.run(client.async_execute(env=_environment(scratch, jobs)))
        except CellExecutionError as error:
            reason = f"{error.ename}: {error.evalue}\n\n{strip_ansi(error.traceback)}"
            raise ChapterError(f"{_place(run, started, chapter)}: {reason}") from None
        except CellTimeoutError:
            limit = f"ran past {SECONDS_A_CELL[profile]} seconds\n\n{started[-1].source}"
            raise ChapterError(f"{_place(run, started, chapter)}: {limit}") from None
        except DeadKernelError:
            died = f"the kernel died\n\n{started[-1].source}"
            raise ChapterError(f"{_place(run, started, chapter)}: {died}") from None
    return with_outputs(notebook, run)


def _environment(scratch: str, jobs: int = 1) -> dict[str, str]:
    """The environment of the kernel: inline figures, and nothing of the person's own IPython start-up."""
    share = {"OMP_NUM_THREADS": str(max(1, cores() // jobs))} if jobs > 1 else {}
    return (
        os.environ
        | share
        | {
            "IPYTHONDIR": os.path.join(scratch, ".ipython"),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "PYTHONHASHSEED": "0",
        }
    )


def _is_injected(cell: NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


def _place(run: NotebookNode, started: list[NotebookNode], chapter: str) -> str:
    """Name the cell that ran last, counted as in the source."""
    code = [cell for cell in run.cells if cell.cell_type == "code" and not _is_injected(cell)]
    for number, cell in enumerate(code, start=1):
        if started and cell is started[-1]:
            return f"chapter {chapter}, code cell {number} of {len(code)}"
    return f"chapter {chapter}, before its first cell"


def with_outputs(notebook: NotebookNode, run: NotebookNode) -> NotebookNode:
    """Give a notebook the outputs of a run of the same code, its cells numbered from one."""
    merged = copy.deepcopy(notebook)
    ran = [cell for cell in run.cells if cell.cell_type == "code" and not _is_injected(cell)]
    code = [cell for cell in merged.cells if cell.cell_type == "code"]
    for number, (cell, source) in enumerate(zip(code, ran, strict=True), start=1):
        # Without the injected cell the kernel's own count has a gap.
        cell.execution_count = number
        cell.outputs = copy.deepcopy(source.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
    return merged
