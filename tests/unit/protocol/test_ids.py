"""The id of a job: its time first, so that those of one moment are neighbours, and the rest left to chance."""

import random

from factories import NOW
from lading_protocol.ids import JOB_CHANCE, new_job, short_job


def test_jobs_stand_in_the_order_in_which_they_began() -> None:
    rng = random.Random(3)
    moments = [0.0, 1.5, NOW, NOW + 0.001, NOW + 1, NOW + 86_400, 2.0**37]
    jobs = [new_job(moment, rng.randbytes(JOB_CHANCE)) for moment in moments]
    assert jobs == sorted(jobs)
    assert {len(job) for job in jobs} == {32}


def test_jobs_of_one_moment_differ_and_are_told_apart() -> None:
    rng = random.Random(3)
    jobs = [new_job(NOW, rng.randbytes(JOB_CHANCE)) for _ in range(100)]
    assert len(set(jobs)) == len({short_job(job) for job in jobs}) == 100
