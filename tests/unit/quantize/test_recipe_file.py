"""Recipe files: what they can say, and how mistakes in them are told."""

from pathlib import Path

import pytest

from quantize.errors import BadInputError
from quantize.recipe_file import read_recipe_file
from quantize.records import Recipe


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_fields_and_recipes_come_back_with_their_types(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        floor = 0.98
        goal = "size"
        exclude = ["conv1"]
        [[recipes]]
        name = "mine"
        kind = "static"
        activation = "QUInt8"
        weight = "QInt8"
        calibration = "percentile"
        percentile = 99.9
        """,
    )
    recipe = Recipe(
        name="mine",
        kind="static",
        activation="QUInt8",
        weight="QInt8",
        calibration="percentile",
        percentile=99.9,
    )
    assert read_recipe_file(path) == {
        "floor": 0.98,
        "goal": "size",
        "exclude": ("conv1",),
        "recipes": (recipe,),
    }


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert read_recipe_file(written(tmp_path, "")) == {}


STATIC = '[[recipes]]\nname="a"\nkind="static"\nactivation="QUInt8"\nweight="QInt8"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flor = 0.9", r"no field 'flor'; did you mean floor\?"),
        ("zzz = 1", r"no field 'zzz'; known are model"),
        ("floor = 2.0", r"<= 1.*floor"),
        ('goal = "speed"', r"'speed'.*goal"),
        ("floor = ", "is not TOML"),
        ("recipes = 3", r"\[\[recipes\]\] tables"),
        ('[[recipes]]\nname="a"\nkind="static"\nwheight="QInt8"', r"recipe 1.*mean weight\?"),
        ('[[recipes]]\nname="a"\nkind="static"', "needs activation, weight and calibration"),
        (f'{STATIC}calibration="minmax"\n' * 2, "name of its own; see 'a'"),
        (
            STATIC.replace("QUInt8", "QInt8").replace('weight="QInt8"', 'weight="QUInt8"')
            + 'calibration="minmax"',
            "no kernel",
        ),
        ('[[recipes]]\nname="fp32"\nkind="dynamic"\nweight="QInt8"', "the float model is"),
        ("seed = -1", "seed"),
        ('[[recipes]]\nname="a"\nkind="dynamic"', "needs weight"),
        ('[[recipes]]\nname="a"\nkind="matmul-nbits"\nbits=2\nblock_size=32', "bits = 4"),
        ('[[recipes]]\nname="a"\nkind="matmul-nbits"\nbits=4\nblock_size=20', "power of two"),
        ('[[recipes]]\nname="a"\nkind="float16"\nweight="QInt8"', "has no integers"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadInputError, match=message) as failure:
        read_recipe_file(path)
    assert str(path) in failure.value.message
    assert "\n" not in failure.value.message


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"cannot read recipe file .*No such file"):
        read_recipe_file(tmp_path / "none.toml")
