"""The plan of each model, looked at with what is known now."""

import logging
import threading
from dataclasses import dataclass
from typing import Final

from agent.device.conditions import Conditions
from agent.device.runtime import Runtime
from agent.elapsed_time import ElapsedTime
from agent.errors import AgentError, RuntimeAwayError, StateError
from agent.plan.decision import Action, Decision, decide
from agent.plan.findings import Finding
from agent.plan.reasons import Reason
from agent.records.updates import Update, Updates
from agent.trust.repository import Repository
from agent.trust.verified import MANIFEST, VerifiedRelease
from agent.update.remembered import model_facts
from agent.update.standing import Standing
from agent.update.states import FINAL
from fleet.documents.plan import Plan, Plans
from fleet.documents.release import ReleaseFacts

_log = logging.getLogger(__name__)

_FRESH: Final = "freshness"


@dataclass(frozen=True)
class Outlook:
    """What follows for one model.

    Attributes:
        model: Its name.
        plan: Its plan; ``None``: the channel has none.
        decision: About it; ``None``: there is no plan.
        manifest_sha256: Of the plan's release; empty: it is not known.
    """

    model: str
    plan: Plan | None = None
    decision: Decision | None = None
    manifest_sha256: str = ""


class PlanLooking:
    """Decides about plans; an ``agent.update.ports.Plans``.

    Args:
        channel: Whose plans are followed.
        repository: What is believed.
        runtime: What runs here.
        updates: What is remembered.
        conditions: How the device is.
        elapsed: Counts the time that guard-rails are about.
    """

    def __init__(  # noqa: PLR0917 - what decisions are made of
        self,
        channel: str,
        repository: Repository,
        runtime: Runtime,
        updates: Updates,
        conditions: Conditions,
        elapsed: ElapsedTime,
    ) -> None:
        self._channel = channel
        #: Held while the repository is read, and by whoever refreshes it.
        self.lock = threading.RLock()
        self._repository = repository
        self._runtime = runtime
        self._updates = updates
        self._conditions = conditions
        self._elapsed = elapsed
        self._faults: dict[str, str] = {}

    def look(self, update: Update) -> Decision | None:
        """Decide about the present plan of an update's model; ``None``: there is none.

        Raises:
            RuntimeAwayError: What runs here is not known now.
            StateError: The disk fails.
        """
        return self.outlook(update.model).decision

    def outlook(self, model: str) -> Outlook:
        """Decide about the present plan of a model.

        Raises:
            RuntimeAwayError: What runs here is not known now.
            StateError: The disk fails.
            TrustError: What was signed contradicts itself.
        """
        with self.lock:
            plans = self._repository.plans(self._channel)
            plan = _of(plans, model)
            if plans is None or plan is None:
                return Outlook(model)
            return self._each(plans, plan, self._runtime.standing(model))

    def outlooks(self) -> list[Outlook]:
        """Decide about every plan, and about models that have an update and no plan any more.

        Raises:
            AgentError: As ``outlook``.
        """
        self._elapsed.keep()
        with self.lock:
            plans = self._repository.plans(self._channel)
            standings = self._runtime.standings()
            found = [
                self._each(plans, plan, standings.get(plan.model, Standing()))
                for plan in (plans.plans if plans is not None else ())
                if plans is not None
            ]
        planned = {outlook.model for outlook in found}
        left = {row.model for row in self._updates.except_in(FINAL)} - planned
        return [*found, *(Outlook(model) for model in sorted(left))]

    def _each(self, plans: Plans, plan: Plan, standing: Standing) -> Outlook:
        """Decide about one plan; what is not understood about its model holds up no other one."""
        model = plan.model
        try:
            outlook = self._decided(plans, plan, standing)
        except (RuntimeAwayError, StateError):
            raise  # no model's own: nothing can be decided now
        except AgentError as error:
            text = f"its release is not understood or not believed: {error.message}"
            return Outlook(model, plan, _not_understood(text))
        except Exception as error:  # noqa: BLE001 - logged, and held
            fault = f"{type(error).__name__}: {error}"
            if self._faults.get(model) != fault:
                _log.exception("nothing can be decided about %s, by a fault of this program", model)
            self._faults[model] = fault
            text = f"this program fails at its plan or its release, see the log: {fault}"
            return Outlook(model, plan, _not_understood(text))
        self._faults.pop(model, None)
        return outlook

    def _decided(self, plans: Plans, plan: Plan, standing: Standing) -> Outlook:
        release = self._repository.release(plan.model, plan.version)
        back = None
        if plan.revert_to is not None:
            back = self._repository.release(plan.model, plan.revert_to)
        sha256 = release.artifacts[MANIFEST].sha256 if release is not None else ""
        elapsed_s = self._elapsed.now_s()
        model = model_facts(
            self._updates,
            standing,
            plan,
            min_counter=self._repository.min_counter(plan.model),
            elapsed_s=elapsed_s,
        )
        times = self._updates.times
        facts = self._conditions.facts(
            {plan.model: model},
            {plan.model: times.changes(plan.model, elapsed_s)},
            elapsed_s=elapsed_s,
            plan_known_s=times.see_plans(plans.channel, plans.issued_s, elapsed_s),
        )
        decision = decide(facts, plan, plans, _facts(release), sha256, back=_facts(back))
        if not self._repository.is_fresh() and decision.action.kind in {"install", "revert"}:
            decision = _held(decision)
        return Outlook(plan.model, plan, decision, sha256)


def _of(plans: Plans | None, model: str) -> Plan | None:
    if plans is None:
        return None
    return next((plan for plan in plans.plans if plan.model == model), None)


def _facts(release: VerifiedRelease | None) -> ReleaseFacts | None:
    return None if release is None else release.facts


def _not_understood(text: str) -> Decision:
    """Begin nothing, and go no further, by a release that this program cannot read."""
    reason = Reason.RELEASE_UNKNOWN
    action = Action(kind="hold", version=None, reason=reason, text=text)
    return Decision(action=action, chain=(Finding(name="release", passed=False, sentence=text),))


def _held(decision: Decision) -> Decision:
    """Begin nothing by metadata that has expired: somebody may keep newer ones from the device."""
    text = (
        "what is known of the repository has expired: nothing new begins until it can be "
        "refreshed; look at its signing (`edge-fleet repo refresh`) and at this device's network"
    )
    action = Action(kind="hold", version=None, reason=Reason.PLAN_TOO_OLD, text=text)
    return Decision(
        action=action, chain=(*decision.chain, Finding(name=_FRESH, passed=False, sentence=text))
    )
