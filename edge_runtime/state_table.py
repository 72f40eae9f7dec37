"""What literal tables of states have in common: looking a row up, and drawing them. Pure.

The tables themselves, ``release.states`` and the agent's ``update.states``, have nothing in common.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import Enum, StrEnum
from typing import TypeVar

_State = TypeVar("_State", bound=StrEnum)
_Event = TypeVar("_Event", bound=StrEnum)
_Recovery = TypeVar("_Recovery", bound=Enum)


class IllegalTransitionError(ValueError):
    """A bug of the program: this event cannot happen in this state. Nothing has moved."""


def known(states: type[_State], stored: str) -> _State | None:
    """Give a stored state; ``None``: this program does not know it.

    Args:
        states: All of them.
        stored: As the disk has it.
    """
    try:
        return states(stored)
    except ValueError:
        return None


def following(
    transitions: Mapping[tuple[_State, _Event], _State],
    state: _State | None,
    event: _Event,
    of_unknown: Mapping[_Event, _State],
) -> _State | None:
    """Look up what an event leads to.

    Args:
        transitions: What may follow what.
        state: What is; ``None``: one that this program does not know.
        event: What happens.
        of_unknown: What may follow a state that this program does not know.

    Returns:
        The next state; ``None``: the table has no such row.
    """
    return of_unknown.get(event) if state is None else transitions.get((state, event))


def diagram(
    begins: Iterable[_State],
    transitions: Mapping[tuple[_State, _Event], _State],
    recovery: Mapping[_State, _Recovery],
    final: Collection[_State],
) -> str:
    """Draw the tables as a Mermaid ``stateDiagram-v2``.

    Args:
        begins: States that something may begin in.
        transitions: What may follow what.
        recovery: What a start does, by state, in words for a person; of every state.
        final: States in which it is over.
    """
    lines = ["stateDiagram-v2", *(f"    [*] --> {_identifier(state)}" for state in begins)]
    for state, action in recovery.items():
        name = _identifier(state)
        lines.append(f"    {name} : {state}")
        if state not in final:
            lines.append(f"    {name} : after a restart, {action.value}")
    events: dict[tuple[_State, _State], list[str]] = {}
    for (state, event), after in transitions.items():
        events.setdefault((state, after), []).append(event)
    lines += [
        f"    {_identifier(state)} --> {_identifier(after)} : {' or '.join(words)}"
        for (state, after), words in events.items()
    ]
    lines += [f"    {_identifier(state)} --> [*]" for state in recovery if state in final]
    return "\n".join(lines) + "\n"


def _identifier(state: str) -> str:
    """Name a state as Mermaid allows it: a hyphen would be part of an arrow."""
    return state.replace("-", "_")
