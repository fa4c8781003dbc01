"""Durable steps in Celery: a step is a message that is confirmed, persistent and acknowledged late.

As a module it is the worker's app. `celery_steps.py JOBS STEPS` posts JOBS chains of STEPS steps and
prints the steps a second from the first post to the end of the last chain.
"""

import os
import sys
import time
from pathlib import Path

from celery import Celery

app = Celery("steps", broker=os.environ["AMQP_URL"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
)
done = Path(os.environ["DONE"])


@app.task(name="step")
def step(job, n):
    """One step: posts the next one before it is acknowledged."""
    if n > 1:
        step.delay(job, n - 1)
    else:
        (done / job).touch()


def main(jobs, steps):
    began = time.monotonic()
    names = [f"{os.getpid()}-{steps}-{job}" for job in range(jobs)]
    for name in names:
        step.delay(name, steps)
    while not all((done / name).exists() for name in names):
        if time.monotonic() - began > 300:
            sys.exit("the chains do not end")
        time.sleep(0.002)
    print(jobs * steps / (time.monotonic() - began))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
