"""Tests of lists in JSON: values that a strict parser refuses, arrays, and objects over several lines."""

import json
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvester.sources.lists.json_elements import read_json_elements
from harvester.sources.lists.lines import MAX_CHARACTERS
from tests.support.lists import read_list

FIRST = '{"campaign_id":"c","send_id":"s1"}'


@pytest.mark.parametrize(
    "member",
    ['"x":NaN', '"x":-Infinity', r'"x":"\ud83d"', '"x":' + "9" * 5000, '"x":1e999', r'"\ud83d":1'],
)
def test_odd_values_in_other_fields_do_not_matter(member):
    """Python and JavaScript write them, although JSON forbids some of them."""
    pairs, bad, _ = read_list(f'{{"campaign_id":"c","send_id":"s0",{member}}}\n{FIRST}\n')
    assert (list(pairs), bad) == ([("c", "s0"), ("c", "s1")], [])


@pytest.mark.parametrize(
    ("number", "text"),
    [("7", "7"), ("12.0", "12"), ("18446744073709551615", "18446744073709551615"), ("1" * 30, "1" * 30)],
)
def test_a_whole_number_is_an_id_with_all_its_digits(number, text):
    """Also if a parser would round it."""
    assert list(read_list(f'{{"campaign_id":{number},"send_id":"s"}}')[0]) == [(text, "s")]


@pytest.mark.parametrize("number", ["7.5", "1e300", "9007199254740993.0", "true", "[]", "NaN"])
def test_another_number_is_no_id(number):
    """It has a fraction, or may have lost digits."""
    _, (bad,), _ = read_list(f'{{"campaign_id":{number},"send_id":"s"}}')
    assert bad.field == "campaign_id"


def test_a_line_may_end_with_a_comma():
    """A part of an array may be copied."""
    assert list(read_list(f"{FIRST},\n{FIRST.replace('s1', 's2')}\n")[0]) == [("c", "s1"), ("c", "s2")]


def test_empty_objects_are_no_lines():
    """They are counted neither as lines nor as bad lines."""
    pairs, bad, source = read_list(f"{FIRST}\n{{}}\nnull\n\n")
    assert (list(pairs), bad, source.lines) == ([("c", "s1")], [], 1)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["-", "a.json", "a.csv"])
def test_an_array_is_read(tmp_path, name, indent):
    """It may be on one line or on many. The content decides, not the name."""
    records = [{"campaign_id": "c", "send_id": f"s{n}", "x": [{"send_id": "]},["}]} for n in range(3)]
    (tmp_path / "a").write_text("\n" + json.dumps(records, indent=indent))
    if name == "-":
        pairs, bad, _ = read_list((tmp_path / "a").read_text())
    else:
        pairs, bad, _ = read_list("", name=(tmp_path / "a").rename(tmp_path / name))
    assert (list(pairs), bad) == ([("c", f"s{n}") for n in range(3)], [])


def test_objects_over_several_lines_are_read():
    """Tools such as jq write them. A bad one is reported with its first line and its number of lines."""
    bad_object = '{\n"campaign_id": "c",\n"send_id": ""\n}\n'
    pairs, (bad,), source = read_list(bad_object.replace('""', '"s"') + bad_object)
    assert (list(pairs), bad.line, bad.lines, source.lines) == ([("c", "s")], 5, 4, 8)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (f"[{FIRST},\n{FIRST[:-1]},\n{FIRST}]", 2, "is not JSON"),
        (f"[{FIRST},\n7,\n{FIRST}]", 2, "is not a JSON object"),
        (f"[{FIRST},\n", 1, "the array has no end"),
        (f"[{FIRST}]\n\n{FIRST}", 3, "after the end of the array"),
        (f'[{FIRST},\n{{"x":"{"y" * MAX_CHARACTERS}"}},\n{FIRST}]', 2, "longer than 1048576 characters"),
    ],
    ids=["bracket", "number", "no end", "more", "long"],
)
def test_a_mistake_in_an_array_is_a_bad_line(text, line, problem):
    """The other elements are read."""
    pairs, bad, _ = read_list(text)
    assert list(pairs) == [("c", "s1")]
    assert bad[0].line == line
    assert problem in bad[0].problem


class Pieces:
    """A text file that returns pieces of any length."""

    def __init__(self, text: str, lengths: list[int]) -> None:
        """Return pieces of these lengths, then the rest."""
        self._text, self._lengths = text, iter(lengths)

    def readline(self, characters: int, /) -> str:
        """Return the next piece, which ends at a line end or earlier."""
        length = next(self._lengths, characters)
        line = self._text[: self._text.find("\n") + 1] or self._text
        piece, self._text = line[:length], self._text[min(length, len(line)) :]
        return piece


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('",[]{}\\:a\n')),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text('"\\]a', max_size=2), values, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=5), st.lists(st.integers(1, 5)), st.sampled_from([None, 1]))
def test_an_array_is_split_into_the_elements_that_a_parser_finds(values, lengths, indent):
    """Wherever the text is divided into pieces."""
    elements = list(read_json_elements(Pieces(json.dumps(values, indent=indent), lengths)))
    assert [json.loads(each.text) for each in elements] == values
    assert not [each for each in elements if each.problem]


@given(st.text('{}[]",\\ \n1', max_size=40), st.lists(st.integers(1, 5)))
def test_any_text_is_split_without_loss(text, lengths):
    """Each character is in an element, except for blanks, and the commas and brackets of the array."""
    elements = read_json_elements(Pieces(text, lengths))
    lost = len("".join(text.split())) - sum(
        len("".join(each.text.split())) for each, _ in zip(elements, count(), strict=False)
    )
    assert 0 <= lost <= text.count(",") + text.count("]") + 1
