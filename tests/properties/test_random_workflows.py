"""Random workflows of everything that there is, killed anywhere, and killed again: they end as if nothing had been.

Compared are how all runs end, what became true outside and when, and each end of a step or a wait with its time.
`PERDURE_PROGRAMS` says how many workflows are drawn; with it the process dies at every border of each of them.
"""

import os
from datetime import timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure import Settings
from tests.support.lives import Script, borders, check_sagas, compare, crashed, live
from tests.support.programs import EXACT, WAITING, Program, programs
from tests.support.runs import play

EXAMPLES = int(os.environ.get("PERDURE_PROGRAMS", "0"))
CRASHES = 0 if EXAMPLES else 8
"""Of one workflow; 0: one at every border."""

settings_drawn = st.sampled_from([timedelta(seconds=10), timedelta(days=1)]).map(
    lambda park_after: Settings(park_after=park_after, idle_after=timedelta(days=1))
)
scripts = st.one_of(
    st.just(Script()),
    st.just(Script()),
    st.builds(Script, cancel=st.sampled_from([0, 1, 4, 10, 30, 70, 150])),
    st.builds(Script, deadline=st.sampled_from([1, 6, 20, 60, 200])),
)


async def die_everywhere(program: Program, script: Script, chosen: Settings, chance: Random) -> None:
    whole = await live(program, script, chosen)
    places = borders(whole)
    for position in sorted(chance.sample(places, min(CRASHES or len(places), len(places)))):
        once = await crashed(whole, position, program, script, chosen, chance)
        compare(whole, once, f"after a crash at {position}")
        if later := borders(once, position + 1):
            again = chance.choice(later)
            twice = await crashed(once, again, program, script, chosen, chance)
            compare(whole, twice, f"after crashes at {position} and {again}")


@settings(max_examples=EXAMPLES or 15)
@given(program=programs(), script=scripts, chosen=settings_drawn, seed=st.integers(0, 2**32))
def test_a_workflow_that_dies_anywhere_comes_to_the_same(
    program: Program, script: Script, chosen: Settings, seed: int
) -> None:
    async def scenario() -> None:
        await die_everywhere(program, script, chosen, Random(seed))

    play(scenario)


storms = st.builds(
    Script,
    cancel=st.sampled_from([None, None, 0, 10, 70, 150]),
    deadline=st.sampled_from([None, None, None, 60, 200]),
    pauses=st.lists(st.tuples(st.integers(0, 60), st.sampled_from([1, 20, 200])), max_size=2).map(tuple),
)


@settings(max_examples=EXAMPLES or 15)
@given(program=programs((*EXACT, *WAITING, "hang")), script=storms, chosen=settings_drawn, seed=st.integers(0, 2**32))
def test_a_workflow_that_is_paused_and_dies_for_a_while_comes_to_an_end_and_leaves_nothing_half_done(
    program: Program, script: Script, chosen: Settings, seed: int
) -> None:
    async def scenario() -> None:
        chance = Random(seed)
        first = await live(program, script, chosen, is_exact=False)
        check_sagas(program, first)
        for _ in range(3):
            ended = first
            for _ in range(2):  # a third in a row would be taken for the workflow's doing
                if not (places := borders(ended)):
                    break
                down_for = chance.choice([0, 1, 10, 100, 5000])
                place = chance.choice(places)
                ended = await crashed(ended, place, program, script, chosen, chance, down_for=down_for)
                check_sagas(program, ended)

    play(scenario)
