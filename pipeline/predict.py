"""python -m pipeline.predict run=NAME source=PATH: classify and certify image files with a finished model.

``jobs.predict`` does the work. It needs torch, so it is only imported when the command runs.
"""

if __name__ == "__main__":
    from configs.entry import run_entry

    run_entry("predict", "jobs.predict")
