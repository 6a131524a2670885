"""convert: fields that are overridden, and the options that it prints."""

import json
import re

import pytest

from jaxseg import backbones, cli, models
from jaxseg.cli import config_options, convert
from jaxseg.errors import UserError
from jaxseg.runs.network import create_model
from jaxseg.weights import classification, network_fields, segmentation

# Fields that Flax sets, those that the run sets, and the compared backbone.
UNCOMPARED = {"parent", "name", "dtype", "param_dtype", "norm", "backbone"}
CASES = [
  (library, name)
  for library, networks in segmentation.FIELDS.items()
  for name in networks
]


@pytest.mark.parametrize(("library", "name"), CASES)
def test_printed_options_build_the_network_of_the_library(library, name):
  fields = dict(segmentation.FIELDS[library][name])
  if name != "unet":
    fields["backbone"] = {"name": "resnet34", **fields.get("backbone", {})}
  file, *overrides = convert.train_options(name, fields)
  config = config_options.read(file.removeprefix("--config="))
  config_options.override(config, overrides)
  config.data.class_names = ("a", "b")
  built = create_model(config)
  expected = models.create(name, num_classes=2, **fields)
  pairs = [(built, expected)]
  if name != "unet":
    pairs.append((built.backbone, expected.backbone))
  for ours, theirs in pairs:
    assert type(ours) is type(theirs)
    for field in type(theirs).__dataclass_fields__.keys() - UNCOMPARED:
      assert getattr(ours, field) == getattr(theirs, field), field


def test_printed_options_build_a_backbone_that_fits_the_classifier():
  kinds = {
    kind for tables in classification.LIBRARIES.values() for kind in tables
  }
  for name, entry in backbones.BACKBONES.items():
    if entry.func not in kinds:
      continue
    fields = {"backbone": {"name": name}}
    file, *overrides = convert.train_options("unet_backbone", fields)
    config = config_options.read(file.removeprefix("--config="))
    assert not overrides
    config.data.class_names = ("a", "b")
    backbone = create_model(config).backbone
    classifier = models.create("classifier", num_classes=2, **fields)
    original = network_fields.describe(classifier.backbone)
    assert network_fields.differences(backbone, original) == [], name


def test_fields_can_be_overridden():
  fields = {"features": 8, "backbone": {"name": "resnet50", "stem": "deep"}}
  words = [
    "--config.model.rates=(1,2)",
    "--config.model.backbone.output_stride=16",
  ]
  assert convert.with_overrides("deeplab_v3", fields, words) == {
    "features": 8,
    "rates": (1, 2),
    "backbone": {"name": "resnet50", "stem": "deep", "output_stride": 16},
  }
  assert convert.with_overrides("deeplab_v3", fields, []) == fields
  paper = convert.with_overrides("pspnet", {}, [words[1]])
  assert paper == {"backbone": {"name": "resnet50", "output_stride": 16}}


@pytest.mark.parametrize(
  ("word", "text"),
  [
    ("--config.model.rats=(1,2)", "did you mean 'rates'"),
    ("--config.model.features=many", "expected"),
    ("--config.eval.flip=True", "--config.eval.flip"),
    ("--config.model.backbone.name=resnet18", "model.backbone.name"),
  ],
)
def test_overrides_that_cannot_be_are_refused(word, text):
  fields = {"backbone": {"name": "resnet50"}}
  with pytest.raises(UserError, match=re.escape(text)):
    convert.with_overrides("deeplab_v3", fields, [word])


def test_json_is_one_object(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(convert.weights, "read_file", lambda path: {})

  def from_torch(model, arrays, library, **options):
    print("loaded")
    return {}

  monkeypatch.setattr(convert.weights, "from_torch", from_torch)
  monkeypatch.setattr(convert.weights, "save", lambda *args: None)
  argv = ["convert", "--model=unet", "--library=milesial", "--num-classes=3"]
  assert cli.main([*argv, "--json", "a.pth", "b.npz"]) == 0
  captured = capsys.readouterr()
  assert "loaded" in captured.err
  report = json.loads(captured.out)
  assert report["out"] == "b.npz" and report["num_classes"] == 3
  assert report["fields"]["norm"] == "batch"
  assert "--config.init.model=b.npz" in report["options"]
