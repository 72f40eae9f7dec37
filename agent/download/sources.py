"""Which server is asked next for an artifact, and which is not asked any more; no I/O."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from agent.errors import AgentError, ConfigError, Distrust, RefusedError, TrustError


@dataclass(slots=True)
class Source:
    """A server that may have an artifact.

    Attributes:
        url: Of the artifact there.
        tag: The strong entity tag that it gave for it; empty: none.
        has_tags: Whether its tags can be relied on.
        has_ranges: Whether it gives parts of files.
    """

    url: str
    tag: str = ""
    has_tags: bool = True
    has_ranges: bool = True


class Sources:
    """All servers for one artifact.

    They are tried in turn; after each was tried there is a pause. Who says that there is no such
    artifact, or has another one, is not asked again for it.

    Args:
        urls: Of the artifact, in the order in which they are tried; the last is the repository's,
            whose word is the last one.
        tags: Entity tags by URL, from earlier.
        resting: URLs of mirrors that are not asked before the first pause.

    Attributes:
        away: URLs of servers whose last word was a failure.
    """

    def __init__(
        self, urls: Sequence[str], tags: Mapping[str, str], resting: Collection[str] = ()
    ) -> None:
        self._all = [Source(url, tags.get(url, "")) for url in urls]
        self._left = list(self._all)
        self._tried: set[str] = {url for url in urls[:-1] if url in resting}
        self.away: set[str] = set()
        self._reason: AgentError | None = None

    def next(self, *, whole: bool) -> Source | None:
        """Choose the server to ask; ``None``: all were tried, it is time for a pause.

        Args:
            whole: Whether all of the file is needed. If not, a server that does not give parts is
                asked only when no other is left, for that costs the whole file.

        Raises:
            ConfigError: There is no server at all.
        """
        if not self._all:
            raise ConfigError(
                "there is no repository to download from; set repository.url, or import a file"
            )
        able = [one for one in self._left if whole or one.has_ranges] or self._left
        return next((one for one in able if one.url not in self._tried), None)

    def again(self) -> None:
        """Begin a new round."""
        self._tried.clear()

    def failed(self, source: Source) -> None:
        """Ask it again only after the others were tried."""
        self._tried.add(source.url)
        self.away.add(source.url)

    def gave(self, source: Source) -> None:
        """Note that it sends something."""
        self.away.discard(source.url)

    def refused(self, source: Source, error: RefusedError) -> None:
        """Note that it has no such artifact.

        Raises:
            RefusedError: No server is left; what the repository said, if it said so.
            TrustError: No server is left, and the repository has another file under the name.
        """
        self._drop(source, error)

    def wrong(self, source: Source, why: str) -> None:
        """Note that its artifact is not the right one.

        Raises:
            RefusedError: No server is left; what the repository said, if it said so.
            TrustError: No server is left, and the repository has another file under the name.
        """
        text = f"{source.url} is not the file that was signed: {why}; publish it again"
        self._drop(source, TrustError(Distrust.WRONG_HASH, text))

    def mirrors(self, urls: frozenset[str]) -> list[Source]:
        """Give those of these servers that are asked and are not the repository."""
        return [one for one in self._left if one.url in urls and self.is_mirror(one)]

    def tags(self) -> dict[str, str]:
        """Give the entity tags by URL."""
        return {one.url: one.tag for one in self._all if one.tag}

    def only(self, urls: frozenset[str]) -> Source | None:
        """Give the server that is all of these; ``None``: there are others among them."""
        return next((one for one in self._left if urls == {one.url}), None)

    def is_mirror(self, source: Source) -> bool:
        """Tell whether a server is not the repository."""
        return source is not self._all[-1]

    def _drop(self, source: Source, error: AgentError) -> None:
        self._left.remove(source)
        if self._reason is None or source is self._all[-1]:
            self._reason = error
        if not self._left:
            raise self._reason
