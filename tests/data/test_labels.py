"""The label map is parsed, formatted and applied."""

import numpy as np
import pytest

from jaxseg.data.labels import format_label_map, parse_label_map, rewrite
from jaxseg.errors import UserError


@pytest.mark.parametrize(
  "text, expected",
  [
    ("", {}),
    ("{}", {}),
    ("{255: 1}", {255: 1}),
    ("255:1,38:0", {255: 1, 38: 0}),
    (" { -1 : 255 , } ", {-1: 255}),
  ],
)
def test_parse(text, expected):
  assert parse_label_map(text) == expected


@pytest.mark.parametrize(
  "text", ["255", "a:1", "{1: 2", "1:2:3", "1=2", "{1: __import__('os')}"]
)
def test_parse_refuses(text):
  with pytest.raises(UserError, match="data.label_map=.*expected pairs"):
    parse_label_map(text)


def test_contradiction_is_refused():
  with pytest.raises(UserError, match="both 1 and 2"):
    parse_label_map("{255: 1, 255: 2}")


def test_format_can_be_parsed():
  line = format_label_map({255: 1, 3: 0})
  assert line == "--config.data.label_map='{3: 0, 255: 1}'"
  assert parse_label_map(line.split("'")[1]) == {255: 1, 3: 0}


def test_rewrite_applies_all_pairs_at_once():
  ids = np.array([[0, 1], [2, 300]], np.uint16)
  out = rewrite(ids, {0: 1, 1: 0, 300: 255}, np.dtype(np.uint8))
  np.testing.assert_array_equal(out, [[1, 0], [2, 255]])
  assert out.dtype == np.uint8
