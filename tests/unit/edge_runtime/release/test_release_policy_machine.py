"""States, evidence and policy together, under any order of traffic, looks, orders and restarts."""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edge_runtime.release.evidence import Evidence, Observation, Side
from edge_runtime.release.policy import (
    Judgement,
    Thresholds,
    is_look_due,
    judge,
    next_look,
    too_many_errors,
)
from edge_runtime.release.states import (
    FINAL,
    SERVES_TRAFFIC,
    TRANSITIONS,
    Cause,
    Event,
    Recovery,
    State,
    next_state,
    recovery,
)
from edge_runtime.state_table import IllegalTransitionError

WEIGHTS = 3
CRASHES_MAX = 2
BLOCKS_MAX = 300
GOOD = {"agrees": 1.0, "is_bad": False, "is_error_candidate": False, "ratio": 1.0}
KINDS = {
    "good": GOOD,
    "disagrees": {**GOOD, "agrees": 0.0},
    "bad": {**GOOD, "is_bad": True},
    "fails": {**GOOD, "is_error_candidate": True},
    "slow": {**GOOD, "ratio": 20.0},
}
STARTS = st.sampled_from([State.INSTALLED, State.SHADOWING, State.CANARY, State.PROBATION])
"""Most examples begin where there is something to judge, or few would get there."""
RARELY = st.integers(0, 9).map(lambda number: number == 9)
JUDGED = {State.SHADOWING, *SERVES_TRAFFIC}


class _ReleaseMachine(RuleBasedStateMachine):
    """A release whose steps are judged as the machine does it: stored first, then acted upon."""

    @initialize(
        floor=st.sampled_from([0.0, 0.5, 0.9]),
        looks_max=st.integers(1, 8),
        blocks_min=st.integers(1, 40),
        alpha=st.sampled_from([0.01, 0.05, 0.3]),
        state=STARTS,
    )
    def begin(
        self, floor: float, looks_max: int, blocks_min: int, alpha: float, state: State
    ) -> None:
        self.wanted = Thresholds(
            agreement_floor=floor, looks_max=looks_max, blocks_min=blocks_min, alpha=alpha
        )
        self.seconds = 0
        self.stage_another(state)

    def stage_another(self, state: State) -> None:
        self.state: str = state
        self.stage = self.crashes = 0
        self.is_served, self.is_condemned = state in SERVES_TRAFFIC, False
        self.new_step()

    @precondition(lambda self: self.state in FINAL)
    @rule(state=STARTS)
    def another_release_is_staged(self, state: State) -> None:
        self.stage_another(state)

    def new_step(self) -> None:
        """Begin a step: no evidence, no looks spent, and all of its alpha."""
        self.evidence = Evidence(1.0, BLOCKS_MAX)
        self.looks, self.spent = 0, 0.0
        self.looked_at: list[int] = []
        self.is_over, self.failures = False, 0

    def take(self, event: Event) -> None:
        before = self.state
        self.state = next_state(before, event)
        assert (State(before), event) in TRANSITIONS
        self.is_served |= self.state in SERVES_TRAFFIC
        self.new_step()

    def roll_back(self, cause: Cause) -> None:
        assert cause in set(Cause)
        self.take(Event.ROLL_BACK)

    # -- before anything is judged -----------------------------------------------------------

    @precondition(lambda self: self.state == State.INSTALLED)
    @rule(passes=st.booleans())
    def self_test(self, *, passes: bool) -> None:
        self.take(Event.BEGIN)
        self.take(Event.PASSED if passes else Event.FAILED)

    @precondition(lambda self: self.state == State.STAGED)
    @rule(event=st.sampled_from([Event.BEGIN, Event.BEGIN, Event.FIRST]))
    def leave_the_stage(self, event: Event) -> None:
        self.take(event)

    # -- evidence ----------------------------------------------------------------------------

    @precondition(lambda self: self.state in JUDGED)
    @rule(kind=st.sampled_from([*["good"] * 8, *KINDS]), count=st.integers(1, 70))
    def compare(self, kind: str, count: int) -> None:
        for _ in range(count):
            self.seconds += 1
            fields = dict(KINDS[kind])
            ratio = fields.pop("ratio")
            plain = Observation(
                at_s=float(self.seconds),
                input_digest=b"%d" % self.seconds,
                active_s=0.01,
                candidate_s=0.01 * ratio * (1 + 1e-6 * self.seconds),
            )
            self.evidence.add(msgspec.structs.replace(plain, **fields))

    @precondition(lambda self: self.state in SERVES_TRAFFIC)
    @rule(
        count=st.integers(1, 40),
        runs=st.tuples(st.integers(0, 9), st.integers(0, 9)),
        errors=st.tuples(st.sampled_from([0, 0, 0, 1, 9]), st.integers(0, 2)),
    )
    def serve(self, count: int, runs: tuple[int, int], errors: tuple[int, int]) -> None:
        for _ in range(count):
            self.seconds += 1
            sides = [
                Side(runs=ran, errors=min(ran, failed), answered_s=0.01 * ran)
                for ran, failed in zip(runs, errors, strict=True)
            ]
            self.evidence.add_block(float(self.seconds), candidate=sides[0], active=sides[1])

    @precondition(lambda self: self.state in SERVES_TRAFFIC)
    @rule(failed=RARELY)
    def answer(self, *, failed: bool) -> None:
        self.failures = self.failures + 1 if failed else 0
        reason = too_many_errors(self.failures)
        assert bool(reason) == (self.failures >= 3)
        if reason:
            self.roll_back(Cause.ERRORS)

    # -- verdicts ----------------------------------------------------------------------------

    @precondition(lambda self: self.state in JUDGED)
    @rule(acts=st.booleans(), proceeds=st.booleans())
    def look(self, *, acts: bool, proceeds: bool) -> None:
        snapshot, before = self.evidence.snapshot(), self.looks
        found = judge(snapshot, self.wanted, before, is_over=self.is_over)
        assert found == judge(snapshot, self.wanted, before, is_over=self.is_over)
        assert before <= found.looks <= self.wanted.looks_max
        is_due = is_look_due(snapshot.blocks, before, self.wanted) or self.is_over
        assert (found.looks > before) == (is_due and before < self.wanted.looks_max)
        self.looks = found.looks  # stored, before anything follows from it
        if found.looks > before:
            self.looked_at.append(snapshot.blocks)
            measures = 4 * (snapshot.pairs > 0) + 2 * (snapshot.candidate.count > 0)
            self.spent += found.numbers["level"] * (measures or 4)
        else:
            assert found.verdict != "fail"
        self.no_worse_evidence_is_judged_better(found, before)
        if not acts:
            return
        if found.verdict == "fail":
            self.is_condemned = True
            self.roll_back(Cause.VERDICT)
        elif found.verdict == "pass" or (self.is_over and proceeds):
            self.go_on()
        elif self.is_over:
            self.roll_back(Cause.DEADLINE)

    def no_worse_evidence_is_judged_better(self, found: Judgement, looks: int) -> None:
        order = ("fail", "inconclusive", "pass")
        snapshot = self.evidence.snapshot()
        candidate = snapshot.candidate
        slower = tuple(mean + 1.0 for mean in candidate.log_means)
        replace = msgspec.structs.replace
        for worse in (
            replace(snapshot, agreements=max(0.0, snapshot.agreements - 1)),
            replace(snapshot, bad=min(snapshot.answered, snapshot.bad + 1)),
            replace(snapshot, errors_candidate=min(snapshot.pairs, snapshot.errors_candidate + 1)),
            replace(snapshot, log_ratios=tuple(ratio + 1.0 for ratio in snapshot.log_ratios)),
            replace(snapshot, candidate=replace(candidate, log_means=slower)),
        ):
            judged = judge(worse, self.wanted, looks, is_over=self.is_over)
            assert order.index(judged.verdict) <= order.index(found.verdict)

    def go_on(self) -> None:
        if self.state == State.CANARY and self.stage + 1 >= WEIGHTS:
            self.take(Event.DONE)
            return
        self.stage += self.state == State.CANARY
        self.take(Event.PASSED)

    @precondition(lambda self: self.state in JUDGED)
    @rule()
    def time_is_over(self) -> None:
        self.is_over = True

    # -- orders and restarts -----------------------------------------------------------------

    @rule(event=st.sampled_from([Event.PROMOTE, Event.NO_ROOM]), takes_back=RARELY)
    def order(self, *, event: Event, takes_back: bool) -> None:
        before, looks = self.state, self.looks
        event = Event.ROLL_BACK if takes_back else event
        try:
            self.take(event)
        except IllegalTransitionError:
            assert (self.state, self.looks) == (before, looks)
            assert (State(before), event) not in TRANSITIONS

    @precondition(lambda self: self.state == State.ROLLING_BACK)
    @rule(works=st.booleans())
    def finish_the_way_back(self, *, works: bool) -> None:
        self.take(Event.DONE if works else Event.ERROR)

    @rule(crashed=RARELY)
    def restart(self, *, crashed: bool) -> None:
        self.crashes += crashed and self.state in SERVES_TRAFFIC
        resumption = recovery(self.state, self.crashes, CRASHES_MAX)
        self.evidence, self.failures = Evidence(1.0, BLOCKS_MAX), 0  # looks and deadline are kept
        if resumption.action is Recovery.ROLL_BACK:
            assert resumption.cause is Cause.CRASHED
            assert self.state in SERVES_TRAFFIC
            self.roll_back(resumption.cause)
        elif resumption.action is Recovery.FINISH:
            assert self.state == State.ROLLING_BACK
        elif resumption.action is Recovery.NOTHING:
            assert self.state in FINAL

    # -- promises ----------------------------------------------------------------------------

    @invariant()
    def alpha_is_never_spent_twice(self) -> None:
        assert self.spent <= self.wanted.alpha * (1 + 1e-9)
        assert self.looks <= self.wanted.looks_max
        assert len(self.looked_at) <= self.wanted.looks_max

    @invariant()
    def a_look_without_restart_needs_more_than_the_one_before(self) -> None:
        due = next_look(self.looks, self.wanted)
        assert due is None or due >= 8 << self.looks

    @invariant()
    def nothing_is_committed_that_never_served(self) -> None:
        assert not (self.state == State.COMMITTED and not self.is_served)
        assert self.state in set(State)

    @invariant()
    def what_failed_never_serves_again(self) -> None:
        if self.is_condemned:
            assert self.state in {State.ROLLING_BACK, State.ROLLED_BACK, State.FAILED}

    @invariant()
    def a_crash_loop_has_ended(self) -> None:
        assert not (self.state in SERVES_TRAFFIC and self.crashes >= CRASHES_MAX)


def test_a_release_is_judged_soundly_whatever_happens() -> None:
    run_state_machine_as_test(
        _ReleaseMachine, settings=settings(max_examples=80, stateful_step_count=40, deadline=None)
    )
