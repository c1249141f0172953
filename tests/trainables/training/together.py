"""One of several processes that train trials of the toy family together, without Ray.

`python -m tests.trainables.training.together MEETING RANK SIZE JOB...`; a job is JSON: an assignment, and after how
many reports to stop. The first process prints the reports of each job as a line of JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import islice

import torch.distributed as dist

from cluster.worker import decode_assignment
from trainables import catalogue
from trainables.training.walk import run_trial


def main(meeting: str, rank: int, size: int, *jobs: str) -> None:
    catalogue.CONFIGS["toy"] = "tests.trainables.training.toy:ToyConfig"
    catalogue.FAMILIES["toy"] = "tests.trainables.training.toy:FAMILY"
    dist.init_process_group("gloo", store=dist.FileStore(meeting, size), rank=rank, world_size=size)
    for job in map(json.loads, jobs):
        reports = run_trial(decode_assignment(job["assignment"]))
        found = [asdict(report) for report in islice(reports, job["n_reports"])]
        reports.close()
        if rank == 0:
            print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
