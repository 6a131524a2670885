"""The tables of data sets, builders and presets name the same data sets."""

import pytest

from jaxseg import config as configs
from jaxseg.data import builders, sources
from jaxseg.data.datasets import DATASETS
from jaxseg.errors import UserError

# Data sets that are drawn by a program have no files.
OF_FILES = sorted(DATASETS.keys() - {"shapes"})


def test_every_data_set_has_a_builder_and_a_preset():
  assert DATASETS.keys() == builders.BUILDERS.keys()
  assert DATASETS.keys() == configs.DATA_PRESETS.keys()


def test_every_builder_has_a_name_of_its_own():
  """TFDS names the prepared files after the class."""
  names = {builder.name for builder in builders.BUILDERS.values()}
  assert len(names) == len(builders.BUILDERS)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_preset_selects_its_data_set(name):
  config = configs.base()
  configs.DATA_PRESETS[name](config)
  assert config.data.name == name


@pytest.mark.parametrize("name", OF_FILES)
def test_a_data_set_of_files_says_which_folder_it_expects(name):
  config = configs.base()
  config.data.name = name
  with pytest.raises(UserError, match="expected a folder with \\w+"):
    sources.find(config.data.name)
