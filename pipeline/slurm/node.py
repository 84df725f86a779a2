"""python -m pipeline.slurm.node FOLDER: one task of the array that was submitted from a folder. SLURM starts it.

Contains no other code, because the processes of the units import the main module of their parent again.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    from pipeline.slurm import task

    task.main(Path(sys.argv[1]), int(os.environ["SLURM_ARRAY_TASK_ID"]))
