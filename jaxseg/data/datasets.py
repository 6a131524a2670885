"""Data sets that jaxseg knows: their classes, colours and normalisation.

CamVid (Brostow et al. 2008) has the classes, class order, colours and loss
weights of the SegNet tutorial (Badrinarayanan et al. 2017). The weights are
those of median-frequency balancing (Eigen and Fergus 2015): the median
frequency of all classes divided by the frequency of the class.

Mean and standard deviation are ImageNet's, with which the published backbones
were trained. The electron microscopy challenge has its own, computed from its
24 grey training images. Classes without published colours get those of the
PASCAL VOC development kit.
"""

import dataclasses

from jaxseg.data import shapes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """Facts about a data set that do not depend on its files.

  Attributes:
    class_names: Name of each class, or () to find the classes in the masks.
    palette: RGB colour of each class, or () for `voc_palette`.
    void_ids: Ids in the mask files that mean "ignore".
    class_weights: Published loss weight of each class, or () if there are none.
    mean: RGB mean in 0..1.
    std: RGB standard deviation in 0..1.
  """

  class_names: tuple[str, ...] = ()
  palette: tuple[Colour, ...] = ()
  void_ids: tuple[int, ...] = ()
  class_weights: tuple[float, ...] = ()
  mean: tuple[float, float, float] = IMAGENET_MEAN
  std: tuple[float, float, float] = IMAGENET_STD


# (class, colour, median-frequency weight), in the order of the class ids.
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
  """Returns distinct colours by the rule of the VOC development kit.

  The rule interleaves the bits of the class id. Bits 0, 1 and 2 become the
  highest bits of red, green and blue, bits 3, 4 and 5 the next lower bits, and
  so on. Class 0 is black.
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
    class_names=shapes.CLASS_NAMES,
    palette=shapes.PALETTE,
    void_ids=(255,),
  ),
  "camvid": DatasetSpec(
    class_names=tuple(name for name, _, _ in _CAMVID),
    palette=tuple(colour for _, colour, _ in _CAMVID),
    void_ids=(11,),
    class_weights=tuple(weight for _, _, weight in _CAMVID),
  ),
  "folder": DatasetSpec(),
  "isbi_em": DatasetSpec(
    class_names=("membrane", "cell"),
    palette=((0, 0, 0), (255, 255, 255)),
    mean=(0.491,) * 3,
    std=(0.171,) * 3,
  ),
}
