"""Finds models on disk and turns them into bundles; nothing else is ever loaded.

A model is a single file, a bundle directory (with ``manifest.json``), a folder of versions, or an
entry of a model repository in Triton's layout, ``<name>/<version>/model.onnx``. Everything here
reads the disk and may take long: the daemon calls it off the event loop.
"""

import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import msgspec

from edge_runtime.bundle import (
    Bundle,
    bundle_from_directory,
    bundle_from_model_file,
    file_status,
    unreadable,
)
from edge_runtime.errors import (
    ArtifactError,
    ConfigError,
    EdgeRuntimeError,
    ManifestError,
    ModelLoadError,
)
from edge_runtime.manifest import MANIFEST_FILE, check_model_name, parse_version
from edge_runtime.settings import Model, VersionPolicy

MODEL_FILE: Final = "model.onnx"
"""Triton's name of the model file in a version folder."""

Kind = Literal["file", "bundle", "versions", "repository"]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a version policy makes of the versions that are there; both ascending.

    Attributes:
        serve: Versions to serve.
        missing: Versions the policy names that are not there.
    """

    serve: tuple[int, ...]
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be turned into a bundle.

    Attributes:
        name: The model; empty if a whole repository folder could not be read.
        version: The version; ``None`` if the whole model is concerned.
        error: What is wrong and what to do.
        is_absent: Whether nothing but a section of the configuration knows of the model.
    """

    name: str
    version: int | None
    error: EdgeRuntimeError
    is_absent: bool = False


@dataclass(frozen=True, slots=True)
class Discovery:
    """What the configuration and the folders ask to be served.

    Attributes:
        bundles: By model name and version; a model without a usable version is not in it.
        problems: What is missing from it, and why.
        folders: Versions that have a folder, by model, whether they are to be served or not.
    """

    bundles: Mapping[str, Mapping[int, Bundle]]
    problems: tuple[Problem, ...]
    folders: Mapping[str, Collection[int]] = field(default_factory=dict)

    def there(self, name: str) -> Collection[int] | None:
        """Give the versions of a model that its source has, usable or not.

        Args:
            name: The model.

        Returns:
            Their numbers; ``None`` if nobody can tell, because a folder could not be read.
        """
        own = [problem.version for problem in self.problems if problem.name == name]
        if None in own:
            return None
        found = {*self.bundles.get(name, ()), *self.folders.get(name, ()), *filter(None, own)}
        is_dark = not found and any(not problem.name for problem in self.problems)
        return None if is_dark else found


def parse_model_argument(text: str) -> tuple[str, Path]:
    """Read a command-line model, ``[NAME=]PATH``.

    Args:
        text: The argument. A ``/`` before the first ``=`` makes all of it the path.

    Returns:
        The name and the path. The default name is the file's name without its ending, or the
        folder's; it is empty for a repository folder, whose entries name themselves.

    Raises:
        ConfigError: The name is not one, or was given to a repository.
    """
    given, equals, rest = text.partition("=")
    named = bool(equals) and "/" not in given
    if not (rest if named else text):
        raise ConfigError(f"{text!r} names no path; write NAME=PATH of a model, or just PATH")
    if named:
        path = Path(rest)
        if _is_repository(path):
            raise ConfigError(
                f"{path} is a model repository, whose folders name the models; write it without "
                f"{given}="
            )
        name = given
    else:
        path = Path(text)
        if _is_repository(path):
            return "", path
        name = path.resolve().name if _is_folder(path) else path.stem
    try:
        check_model_name(name)
    except ManifestError as error:
        raise ConfigError(f"{error.message}; give another one as NAME={path}") from error
    return name, path


def classify(path: Path) -> Kind:
    """Say what an operator's path is.

    Returns:
        ``file``; ``bundle``: a folder with a manifest; ``versions``: a folder whose version
        folders hold models; ``repository``: any other folder.

    Raises:
        ModelLoadError: It is not there, or cannot be read.
    """
    mode = file_status(path, str(path)).st_mode
    if not stat.S_ISDIR(mode):
        return "file"
    try:
        if (path / MANIFEST_FILE).exists():
            return "bundle"
        for folder in _versions(path).values():
            if (folder / MODEL_FILE).exists() or (folder / MANIFEST_FILE).exists():
                return "versions"
    except OSError as error:
        raise ModelLoadError(unreadable(str(path), error)) from error
    return "repository"


def scan_repository(root: Path) -> dict[str, dict[int, Path]]:
    """List the version folders of a model repository in Triton's layout.

    Args:
        root: Folder of model folders. Files, names that start with a dot and version folders that
            are not whole numbers from 1 without leading zeros are passed over, as Triton does.

    Returns:
        Version folders by model name and version; a model folder without any has an empty entry.

    Raises:
        ArtifactError: The root cannot be read.
    """
    try:
        folders = [
            entry
            for entry in root.iterdir()
            if not entry.name.startswith(".") and _is_folder(entry)
        ]
    except (OSError, ValueError) as error:
        raise ArtifactError(unreadable(f"the model repository {root}", error)) from error
    found: dict[str, dict[int, Path]] = {}
    for folder in sorted(folders):
        try:
            found[folder.name] = _versions(folder)
        except OSError:
            # One model's folder must not hide the others; without versions it is reported.
            found[folder.name] = {}
    return found


def select_versions(available: Collection[int], policy: VersionPolicy) -> Selection:
    """Apply a version policy: the latest version, unless it says otherwise.

    Args:
        available: Versions that are there.
        policy: What to serve of them.
    """
    present = sorted(set(available))
    if policy.all:
        return Selection(tuple(present))
    if policy.specific:
        wanted = sorted(set(policy.specific))
        serve = tuple(version for version in wanted if version in present)
        return Selection(serve, tuple(version for version in wanted if version not in present))
    return Selection(tuple(present[-(policy.latest or 1) :]))


def discover(
    models: Mapping[str, Model],
    repositories: Iterable[str],
    only: str = "",
    without: Collection[int] = (),
) -> Discovery:
    """Find everything that is to be served; one broken model does not hide the others.

    Args:
        models: Configured models by name.
        repositories: Model repository folders.
        only: Look at this model alone; empty: at all. An unknown name finds nothing.
        without: Versions that are passed over, because they could not be loaded.
    """
    problems: list[Problem] = []
    places: dict[str, list[_Versions]] = {}
    for root in repositories:
        try:
            for name, versions in scan_repository(Path(root)).items():
                left = {key: path for key, path in versions.items() if key not in without}
                places.setdefault(name, []).append(_Versions(root, name, left or versions))
        except ArtifactError as error:
            problems.append(Problem("", None, error))
    bundles: dict[str, dict[int, Bundle]] = {}
    folders: dict[str, set[int]] = {}
    for name in sorted(models.keys() | places.keys()):
        if only in {"", name}:
            there = folders[name] = set()
            settings, roots = models.get(name, Model()), places.get(name, [])
            try:
                found = _one_model(name, settings, roots, problems, there)
            except (EdgeRuntimeError, OSError) as error:
                is_absent = not settings.path and not roots
                ours = _as_ours(error, f"model {name!r}")
                problems.append(Problem(name, None, ours, is_absent))
            else:
                bundles.update({name: found} if found else {})
    return Discovery(bundles, tuple(problems), folders)


@dataclass(frozen=True, slots=True)
class _Versions:
    """The version folders of one model, and how messages call the folder they are in."""

    root: str
    shown: str
    folders: Mapping[int, Path]


def _one_model(
    name: str,
    settings: Model,
    places: list[_Versions],
    problems: list[Problem],
    there: set[int],
) -> dict[int, Bundle]:
    """Make the bundles of one model; adds problems of single versions, and the versions there."""
    check_model_name(name)
    if settings.path:
        sources = [f"models.{name}.path", *(place.root for place in places)]
    else:
        sources = [place.root for place in places]
    if len(sources) > 1:
        raise ConfigError(f"model {name!r} is in {' and in '.join(sources)}; leave it in one")
    if settings.path:
        path = Path(settings.path)
        kind = classify(path)
        if kind == "file":
            bundle = bundle_from_model_file(path, name)
            return {1: bundle}
        if kind == "bundle":
            bundle = bundle_from_directory(path)
            # The operator's name for it wins; the digest does not depend on it.
            manifest = msgspec.structs.replace(bundle.manifest, name=name)
            return {manifest.version: replace(bundle, manifest=manifest)}
        if kind == "repository":
            raise ConfigError(
                f"models.{name}.path: {path} holds neither a model file nor {MANIFEST_FILE}; a "
                "folder of models belongs into `repositories`"
            )
        places = [_Versions(str(path), str(path), _versions(path))]
    elif not places:
        raise ConfigError(
            f"model {name!r} is in none of the repositories; set models.{name}.path or remove "
            f"models.{name}"
        )
    there.update(places[0].folders)
    return _selected(name, places[0], settings.version_policy, problems)


def _selected(
    name: str, place: _Versions, policy: VersionPolicy, problems: list[Problem]
) -> dict[int, Bundle]:
    """Make the bundles of the versions that a policy selects."""
    if not place.folders:
        raise ModelLoadError(
            f"{place.shown} holds no version folder that can be read; put the model into "
            f"{place.shown}/1/{MODEL_FILE}"
        )
    there = ", ".join(str(version) for version in sorted(place.folders))
    bundles: dict[int, Bundle] = {}
    broken: set[int] = set()
    while True:
        # Under `latest` an older version takes the place of one that cannot be read.
        selection = select_versions(place.folders.keys() - broken, policy)
        untried = [version for version in selection.serve if version not in bundles]
        if not untried:
            break
        for version in untried:
            shown = f"{place.shown}/{version}"
            try:
                folder = place.folders[version]
                bundles[version] = _from_version_folder(folder, name, version, shown)
            except (EdgeRuntimeError, OSError) as error:
                broken.add(version)
                problems.append(Problem(name, version, _as_ours(error, shown)))
    for version in selection.missing:
        if version not in broken:
            missing = ArtifactError(f"{place.shown} has no version {version}; there: {there}")
            problems.append(Problem(name, version, missing))
    return bundles


def _from_version_folder(folder: Path, name: str, version: int, shown: str) -> Bundle:
    """Read a version folder: a bundle, or a model file under Triton's name."""
    if not (folder / MANIFEST_FILE).exists():
        path = folder / MODEL_FILE
        # Triton keeps a model with external weights in a folder of the model file's name.
        inner = MODEL_FILE if _is_folder(path) else ""
        return bundle_from_model_file(
            path / inner, name, version, "/".join(filter(None, (shown, MODEL_FILE, inner)))
        )
    bundle = bundle_from_directory(folder, shown)
    said = (bundle.manifest.name, bundle.manifest.version)
    if said != (name, version):
        raise ManifestError(
            f"{shown}/{MANIFEST_FILE} is of {said[0]} version {said[1]}; move the bundle to "
            f"{said[0]}/{said[1]}"
        )
    return bundle


def _versions(folder: Path) -> dict[int, Path]:
    """List the version folders in a model's folder."""
    found: dict[int, Path] = {}
    for entry in folder.iterdir():
        try:
            version = parse_version(entry.name)
        except ManifestError:
            continue
        if _is_folder(entry):
            found[version] = entry
    return found


def _as_ours(error: EdgeRuntimeError | OSError, shown: str) -> EdgeRuntimeError:
    """Translate what the system refused between two of our own checks."""
    if isinstance(error, OSError):
        return ModelLoadError(unreadable(shown, error))
    return error


def _is_folder(path: Path) -> bool:
    """Say whether this is a folder; what may not be looked at is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_repository(path: Path) -> bool:
    """Say whether this is there and a repository."""
    try:
        return classify(path) == "repository"
    except ModelLoadError:
        return False
