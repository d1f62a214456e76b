import inspect
import pickle
import re

import pytest

from cmlflow import errors

CLASSES = {name: found for name, found in vars(errors).items() if isinstance(found, type)}


def test_the_tree_at_the_top_of_the_module_names_every_class_below_its_parent():
    """Depth and order of the lines are compared with the classes themselves."""
    found, parents = {}, {0: "Exception"}
    for spaces, name in re.findall(r"^( *)([A-Z]\w+) {2,}", errors.__doc__, re.MULTILINE):
        depth = len(spaces) // 4
        found[name] = parents[depth]
        parents[depth + 1] = name
    assert found == {name: one.__base__.__name__ for name, one in CLASSES.items()}


@pytest.mark.parametrize("name", CLASSES)
def test_each_error_has_three_lines_what_is_wrong_what_was_expected_what_mends_it(name):
    error = CLASSES[name]("Seven is met.", "a number below six.", "make clean")
    found, expected, cure = str(error).splitlines()
    assert (found, expected) == ("Seven is met.", "Expected: a number below six.")
    assert cure == ("Run this first:  make clean" if name == "MissingStep" else "make clean")
    assert inspect.getdoc(CLASSES[name])


def test_an_error_survives_the_way_out_of_another_process():
    for name, one in CLASSES.items():
        error = one("found", "expected", "cure")
        assert str(pickle.loads(pickle.dumps(error))) == str(error), name
