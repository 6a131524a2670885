"""The data sets jaxseg knows: classes, colours, ignore id, normalisation.

CamVid's classes, their order, colours and loss weights are those of the
SegNet tutorial (Badrinarayanan et al. 2017; Brostow et al. 2008 for the
data). The weights are median-frequency balancing (Eigen and Fergus 2015): the
median class frequency divided by that of the class. Mean and deviation are
ImageNet's, which the published backbones were trained with; those of the
electron microscopy challenge are its own, of 24 grey images. A folder of
unknown classes is coloured by the rule of the PASCAL VOC development kit.
"""

import dataclasses

from jaxseg.data import shapes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """What is known of a data set before any of its files is read.

  Attributes:
    name: key of `DATASETS`.
    class_names: () = found in the masks.
    palette: one RGB triple a class; () = `voc_palette`.
    splits: those the data set is published with; () = found in the folder.
    void_ids: ids of the files that mean "ignore".
    class_weights: published loss weights, one a class; () = none.
    mean: RGB mean in 0..1.
    std: RGB standard deviation in 0..1.
    ignore_label: the id of ignored pixels.
  """

  name: str
  class_names: tuple[str, ...] = ()
  palette: tuple[Colour, ...] = ()
  splits: tuple[str, ...] = ()
  void_ids: tuple[int, ...] = ()
  class_weights: tuple[float, ...] = ()
  mean: tuple[float, float, float] = IMAGENET_MEAN
  std: tuple[float, float, float] = IMAGENET_STD
  ignore_label: int = 255


# (class, colour, median-frequency weight), in the order of the ids.
_CAMVID = (
  ("sky", (128, 128, 128), 0.2595),
  ("building", (128, 0, 0), 0.1826),
  ("pole", (192, 192, 128), 4.5640),
  ("road", (128, 64, 128), 0.1417),
  ("pavement", (60, 40, 222), 0.9051),
  ("tree", (128, 128, 0), 0.3826),
  ("sign_symbol", (192, 128, 128), 9.6446),
  ("fence", (64, 64, 128), 1.8418),
  ("car", (64, 0, 128), 0.6823),
  ("pedestrian", (64, 64, 0), 6.2478),
  ("bicyclist", (0, 128, 192), 7.3614),
)


def voc_palette(num_classes: int) -> tuple[Colour, ...]:
  """Distinct colours by the VOC rule: the bits of the id, interleaved.

  Bits 0, 1, 2 of the id become the top bits of red, green, blue, bits 3, 4, 5
  the next lower ones, and so on; id 0 is black.
  """

  def colour(i: int) -> Colour:
    rgb = [0, 0, 0]
    for bit in range(8):
      for channel in range(3):
        rgb[channel] |= (i >> (3 * bit + channel) & 1) << (7 - bit)
    return (rgb[0], rgb[1], rgb[2])

  return tuple(colour(i) for i in range(num_classes))


DATASETS = {
  "shapes": DatasetSpec(
    name="shapes",
    class_names=shapes.CLASS_NAMES,
    palette=shapes.PALETTE,
    splits=tuple(shapes.SPLIT_SIZES),
    void_ids=(255,),
  ),
  "camvid": DatasetSpec(
    name="camvid",
    class_names=tuple(name for name, _, _ in _CAMVID),
    palette=tuple(colour for _, colour, _ in _CAMVID),
    splits=("train", "val", "test"),
    void_ids=(11,),
    class_weights=tuple(weight for _, _, weight in _CAMVID),
  ),
  "folder": DatasetSpec(name="folder"),
  "isbi_em": DatasetSpec(
    name="isbi_em",
    class_names=("membrane", "cell"),
    palette=((0, 0, 0), (255, 255, 255)),
    splits=("train", "val"),
    mean=(0.491,) * 3,
    std=(0.171,) * 3,
  ),
}
