"""Who may ask a model: rules about users and groups, against what the kernel says of a caller.

Whoever is not on a model's list gets no prediction, no description of its tensors and no numbers of
how others use it. That it exists, and whether it is ready, is told to everybody who may open the
socket: health checks need it. The admin socket tells everything.
"""

import grp
import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from edge_runtime.access import Peer
from edge_runtime.errors import ConfigError
from edge_runtime.settings import Model, Release


@dataclass(frozen=True, slots=True)
class Callers:
    """An allow-list.

    Attributes:
        uids: Users who may ask.
        gids: Groups whose members may ask.
    """

    uids: frozenset[int]
    gids: frozenset[int]

    @classmethod
    def parse(cls, rules: Iterable[str], where: str) -> Self:
        """Read rules.

        Args:
            rules: ``user:NAME``, ``uid:NUMBER``, ``group:NAME`` or ``gid:NUMBER`` each.
            where: What the rules belong to, for messages.

        Raises:
            ConfigError: A rule is something else, or names nobody.
        """
        uids: set[int] = set()
        gids: set[int] = set()
        for rule in rules:
            kind, _, name = rule.partition(":")
            try:
                if kind == "user" and name:
                    uids.add(pwd.getpwnam(name).pw_uid)
                elif kind == "group" and name:
                    gids.add(grp.getgrnam(name).gr_gid)
                elif kind in {"uid", "gid"} and name.isascii() and name.isdecimal():
                    (uids if kind == "uid" else gids).add(int(name))
                else:
                    raise ConfigError(
                        f"{where}: {rule!r} is no rule; write user:NAME, uid:NUMBER, group:NAME "
                        "or gid:NUMBER"
                    )
            except KeyError:
                raise ConfigError(
                    f"{where}: there is no {kind} {name!r} on this device; create it or drop the "
                    "rule"
                ) from None
        return cls(frozenset(uids), frozenset(gids))

    def admit(self, peer: Peer) -> bool:
        """Tell whether a caller may ask; one of whom the kernel says nothing may not."""
        return peer.uid in self.uids or not self.gids.isdisjoint(peer.groups)


def by_model(models: Mapping[str, Model]) -> dict[str, Callers]:
    """Make the allow-lists of a configuration, for the models that have one.

    Raises:
        ConfigError: A rule is wrong; the message names the model.
    """
    return {
        name: Callers.parse(model.callers, f"models.{name}.callers")
        for name, model in models.items()
        if model.callers
    }


def admins(release: Release) -> Callers | None:
    """Make the list of those who may change what is served; ``None``: whoever opens the door.

    Raises:
        ConfigError: A rule is wrong.
    """
    return Callers.parse(release.admins, "release.admins") if release.admins else None


def fleet(release: Release) -> Callers | None:
    """Make the list of those who always count as the fleet; ``None``: nobody does.

    Raises:
        ConfigError: A rule is wrong.
    """
    return Callers.parse(release.fleet, "release.fleet") if release.fleet else None
