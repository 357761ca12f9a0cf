"""Offer SLURM jobs as workers for ``macrodyn sweep --scheduler``, until interrupted.

    pip install dask-jobqueue
    python docs/clusters/slurm.py 40        # at most 40 jobs; prints the address to be used

Settings: ``slurm.yaml`` beside this file, copied to ``~/.config/dask/``. Jobs are asked for when
runs wait and given back when none does.
"""

import sys
import threading

from dask_jobqueue import SLURMCluster

if __name__ == "__main__":
    with SLURMCluster() as cluster:
        cluster.adapt(minimum=0, maximum=int(sys.argv[1]))
        print(cluster.scheduler_address, flush=True)
        threading.Event().wait()
