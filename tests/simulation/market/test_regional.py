"""A view of one region and summaries of the rest, against a view of every host, on the same trace."""

from msgspec import structs

from simulation.market.regional import BySummary
from simulation.market.report import Result, play_on, table
from simulation.market.routers import Lading, TwoChoices
from simulation.market.traffic import Job, Machine, Shape, machines, trace

SEED = 6


def both(made: list[Machine], jobs: list[Job], shape: Shape) -> tuple[Result, Result]:
    full, ours, other = (play_on(made, jobs, shape, (policy, SEED)) for policy in (Lading, BySummary, TwoChoices))
    print(f"\nseed {SEED}\n{table([full, ours, other])}")
    assert ours.cost <= 0.8 * other.cost
    assert (ours.shed, full.shed) == (0.0, 0.0)
    return full, ours


def test_with_summaries_jobs_cost_what_they_cost_with_a_view_of_all_hosts_and_wait_no_longer() -> None:
    shape = Shape(hosts=1_000, seconds=5.0, warm=2.5)
    made = machines(SEED, shape)
    full, ours = both(made, trace(SEED, shape, sum(one.slots for one in made)), shape)
    assert ours.cost <= 1.03 * full.cost
    assert ours.p50 <= 1.1 * full.p50
    assert ours.good >= full.good - 0.02


def test_where_all_work_comes_to_one_region_the_others_take_their_part() -> None:
    """Four times what its own hosts would get, and the gateways of the others have nothing to do."""
    shape = Shape(hosts=800, seconds=8.0, warm=4.0, liars=0.0, load=0.5)
    made = machines(SEED, shape)
    jobs = [structs.replace(job, gateway=0) for job in trace(SEED, shape, sum(one.slots for one in made))]
    full, ours = both(made, jobs, shape)
    assert ours.cost <= 1.08 * full.cost
    assert ours.p50 <= 1.7 * full.p50
    assert ours.good >= full.good - 0.05
