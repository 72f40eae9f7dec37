"""Reads a recipe file: any of the settings as TOML, and recipes of the user's own."""

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import msgspec

from quantize.errors import BadInputError
from quantize.records import BASELINE, Recipe
from quantize.settings import Settings

_RECIPES: Final = "recipes"
_REQUIRED: Final = {"model": "-", "data": "-", "output": "-"}  # the command line may give them
_SETTINGS: Final = tuple(field.name for field in msgspec.structs.fields(Settings))
_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(Recipe))


def read_recipe_file(path: Path) -> dict[str, object]:
    """Read the settings of a recipe file.

    Args:
        path: TOML: fields of ``Settings``, and ``[[recipes]]`` with fields of ``Recipe``.

    Returns:
        Values of those fields of ``Settings`` that the file sets, of the fields' types.

    Raises:
        BadInputError: The file cannot be read, is no TOML, or has an unknown field, a value of
            the wrong type or out of range, or a recipe that cannot be made.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInputError(f"cannot read recipe file {path}: {reason}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"recipe file {path} is not TOML: {error}") from error
    _refuse_unknown(table, _SETTINGS, f"recipe file {path}")
    entries = table.get(_RECIPES, [])
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise BadInputError(f"recipe file {path}: write recipes as [[recipes]] tables")
    for place, entry in enumerate(entries, start=1):
        _refuse_unknown(entry, _FIELDS, f"recipe file {path}, recipe {place}")
    try:
        settings = msgspec.convert({**_REQUIRED, **table}, Settings)
    except msgspec.ValidationError as error:
        raise BadInputError(f"recipe file {path}: {error}") from error
    try:
        check(settings.recipes)
    except BadInputError as error:
        raise BadInputError(f"recipe file {path}: {error.message}") from error
    return {name: getattr(settings, name) for name in table}


def check(recipes: Iterable[Recipe]) -> None:
    """Refuse recipes that no quantiser could follow.

    Args:
        recipes: A user's.

    Raises:
        BadInputError: Two have one name, or one of them contradicts itself.
    """
    names: set[str] = set()
    for recipe in recipes:
        if recipe.name == BASELINE:
            raise BadInputError(f"a recipe cannot be named {BASELINE!r}: the float model is")
        if not recipe.name or recipe.name in names:
            raise BadInputError(f"every recipe needs a name of its own; see {recipe.name!r}")
        names.add(recipe.name)
        problem = _problem(recipe)
        if problem:
            raise BadInputError(f"recipe {recipe.name!r} {problem}")


def _problem(recipe: Recipe) -> str:
    match recipe.kind:
        case "static":
            if not recipe.activation or not recipe.weight or not recipe.calibration:
                return "is static: it needs activation, weight and calibration"
            if (recipe.activation, recipe.weight) == ("QInt8", "QUInt8"):
                return "has signed activations and unsigned weights, for which there is no kernel"
        case "dynamic":
            if not recipe.weight:
                return "is dynamic: it needs weight"
            if recipe.activation == "QInt8" or recipe.calibration:
                return "is dynamic: activations are always QUInt8, and nothing is calibrated"
        case "matmul-nbits":
            size = recipe.block_size
            if recipe.bits not in {4, 8}:
                return "is matmul-nbits: it needs bits = 4 or bits = 8"
            if size < 16 or size & (size - 1):  # noqa: PLR2004 - what the kernel takes
                return "is matmul-nbits: it needs a block_size that is a power of two, at least 16"
        case "float16" | "float32":
            if recipe.activation or recipe.weight or recipe.calibration or recipe.bits:
                return f"is {recipe.kind}: it has no integers"
    if recipe.reduce_range and recipe.weight != "QInt8":
        return "reduces the range of weights, which only QInt8 has use for"
    return ""


def _refuse_unknown(table: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise BadInputError(f"{where}: there is no field {name!r}; {hint}")
