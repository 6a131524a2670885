"""classes.txt names the classes; without it their number is guessed."""

import pytest

from jaxseg import data
from jaxseg.data import class_file
from jaxseg.errors import UserError


@pytest.mark.parametrize(
  "text",
  [
    "sky\nroad\nstop sign\n\n",
    "\ufeffsky\r\nroad\r\nstop sign",
    "# my classes\nsky\nroad\nstop sign",
    "2 stop sign\n0: sky\n1, road\n255 void",
  ],
)
def test_names_in_order_or_with_ids(tmp_path, text):
  path = tmp_path / "classes.txt"
  path.write_text(text, encoding="utf-8", newline="")
  assert class_file.read(path, 255) == ("sky", "road", "stop sign")


@pytest.mark.parametrize(
  ("text", "words"),
  [
    (b"", "names 0 classes"),
    (b"sky\n", "names 1 classes"),
    (b"sky\n\nroad", "line 2 is empty"),
    (b"sky\nroad\nsky", "both class 0 and class 2 'sky'"),
    (b"0 sky\nroad", "line 2: 'road'; expected an id and a name"),
    (b"0 sky\n1 road\n1 car", "line 3: id 1 is named 'road' before"),
    (b"0 sky\n7 road\n38 car", "but not 1;.*label_map='{7: 1, 38: 2}'"),
    (b"caf\xe9\nroad", "cannot be read as UTF-8"),
  ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, text, words):
  path = tmp_path / "classes.txt"
  path.write_bytes(text)
  with pytest.raises(UserError, match=f"classes.txt.*{words}") as error:
    class_file.read(path, 255)
  assert "\n" not in str(error.value)


def test_a_folder_has_the_classes_of_its_file(folder, configure, capsys):
  root = folder()
  guessed = data.open(configure(root))
  assert len(guessed.class_names) == 3
  path = root / "classes.txt"
  note = "note: 3 classes, guessed from the highest id in the masks; name all"
  assert f"{note} classes in {path}, one a line" in capsys.readouterr().err
  path.write_text("a\nb\nc\nnever\n")
  assert data.open(configure(root)).class_names == ("a", "b", "c", "never")
  assert "guessed" not in capsys.readouterr().err
  path.write_text("a\nb\n")
  with pytest.raises(UserError, match=rf"\[2\] are outside 0..1.*{path}"):
    data.open(configure(root))
  # The classes of a trained network are fixed.
  names = ("a", "c")
  with pytest.raises(
    UserError, match="names class 1 'b', but data.class_names has 'c'"
  ):
    data.open(configure(root, class_names=names), training=False)


def test_gaps_in_guessed_classes_are_reported(folder, configure, capsys):
  root = folder()
  data.open(configure(root, label_map="{2: 3}"))
  assert "4 classes, guessed" in (err := capsys.readouterr().err)
  assert "(no mask holds [2])" in err
