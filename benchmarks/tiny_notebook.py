"""A notebook with half a second of work; imported by its kernels, so that it imports little."""

import time
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from macrodyn_lib import parameters

NAME = "10_tiny_benchmark"


class TinyParameters(parameters.StudyParameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {"smoke": {"seconds": 0.5}}
    seconds: Annotated[float, Field(gt=0)]


CELLS = [
    'preset = "smoke"\nseed = 0\noutput_dir = None\nseconds = None',
    f"""from benchmarks import tiny_notebook
from macrodyn_lib import study
tiny_notebook.register()
run = study.begin("{NAME}", globals())""",
    "tiny_notebook.work(run)",
    "run.finish()",
]


def register() -> None:
    parameters.NOTEBOOKS[NAME] = TinyParameters


def work(run: Any) -> None:
    """So many seconds of processor time, whatever else the machine does."""
    rng = run.stream("work")
    end, draws = time.process_time() + run.seconds, []
    while time.process_time() < end:
        draws.append(rng.standard_normal(10_000).mean())
    run.check("mean", float(np.mean(draws)), reference=0.0, absolute=0.1)
