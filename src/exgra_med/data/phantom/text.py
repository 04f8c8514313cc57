"""Sentences of the phantom world: questions in several wordings, and phrases about a scene."""

from collections.abc import Sequence

from exgra_med.data.phantom.anatomy import ORGANS, organs_of
from exgra_med.data.phantom.scene import Lesion, Scene

WORDINGS: dict[str, tuple[str, ...]] = {
    "modality": (
        "Which imaging modality is this?",
        "How was this image taken?",
        "What kind of scan is shown?",
    ),
    "modality_check": (
        "Is this {a_modality}?",
        "Was this image taken by {modality}?",
        "Is {a_modality} shown here?",
    ),
    "region": (
        "Which region of the body is shown?",
        "What part of the body does this image show?",
        "Which body region was imaged?",
    ),
    "laterality": (
        "Is the {organ} on the left or the right side?",
        "On which side is the {organ}, left or right?",
    ),
    "count": (
        "How many lesions are there?",
        "What is the number of lesions in this image?",
        "How many lesions can be counted?",
    ),
    "lesion_present": (
        "Is there any lesion in this image?",
        "Does this image show a lesion?",
        "Can a lesion be seen?",
    ),
    "lesion_in_organ": (
        "Is there a lesion in the {organ}?",
        "Does the {organ} contain a lesion?",
        "Is the {organ} affected by a lesion?",
    ),
    "organ": (
        "In which organ is the {shape} lesion?",
        "Which organ holds the {shape} lesion?",
        "Which organ is affected by the {shape} lesion?",
    ),
    "place": (
        "Where is the {shape} lesion?",
        "Where does the {shape} lesion lie?",
        "What is the location of the {shape} lesion?",
    ),
    "side": (
        "Is the {shape} lesion on the left or the right side?",
        "On which side is the {shape} lesion, left or right?",
    ),
    "shape": (
        "What shape is the lesion in {place}?",
        "Which shape does the lesion in {place} have?",
        "How is the lesion in {place} shaped?",
    ),
    "shape_check": (
        "Is the lesion in {place} {shape}?",
        "Does the lesion in {place} look {shape}?",
    ),
    "kind": (
        "What kind of lesion is in {place}?",
        "Which type of lesion is seen in {place}?",
        "What is the finding in {place}?",
    ),
    "size": (
        "Is the lesion in {place} small or large?",
        "What size is the lesion in {place}, small or large?",
    ),
    "contrast": (
        "Is the lesion in {place} bright or dark?",
        "Does the lesion in {place} appear bright or dark?",
    ),
    "comparison": (
        "Is the lesion in {place} larger than the one in {other_place}?",
        "Does the lesion in {place} exceed the one in {other_place} in size?",
    ),
    "device_present": (
        "Is there a medical device in this image?",
        "Does this image show a medical device?",
        "Can a medical device be seen?",
    ),
    "device": (
        "Which medical device is seen?",
        "What kind of device does the image show?",
        "What is the device in this image?",
    ),
}
"""Family of questions -> its wordings."""

NUMBERS = ("zero", "one", "two", "three")
_MODALITY = {
    "X-ray": "an X-ray",
    "CT": "a CT scan",
    "MRI": "an MRI",
    "ultrasound": "an ultrasound image",
}
_ADJECTIVES = {
    "round": "round",
    "ring": "ring-shaped",
    "star": "star-shaped",
    "bar": "bar-shaped",
    "wedge": "wedge-shaped",
}
_CAPTIONS = (
    "{Modality} of the {region} shows {findings}. {Device}.",
    "{Findings} can be seen on {modality} of the {region}. {Device}.",
    "In the {region} there is {findings}. {Device}. It is {modality}.",
)


def with_modality(modality: str) -> str:
    """A modality with its article: "an X-ray"."""
    return _MODALITY[modality]


def adjective(shape: str) -> str:
    """A shape as an adjective: "ring-shaped"."""
    return _ADJECTIVES[shape]


def place_answer(lesion: Lesion) -> str:
    """Where a lesion is, in few words: "left kidney", "liver"."""
    organ = ORGANS[lesion.organ]
    return f"{lesion.side} {lesion.organ}" if organ.paired or organ.is_central else lesion.organ


def place_phrase(lesion: Lesion) -> str:
    """Where a lesion is, within a sentence: "the left half of the brain"."""
    if ORGANS[lesion.organ].is_central:
        return f"the {lesion.side} half of the {lesion.organ}"
    return f"the {place_answer(lesion)}"


def lesion_phrase(lesion: Lesion) -> str:
    """A lesion with all its attributes: "a small bright ring-shaped abscess in the left lung"."""
    place = place_phrase(lesion)
    if place == f"the {lesion.organ}":
        place += f" on the {lesion.side} side"
    return f"a {lesion.size} {lesion.contrast} {adjective(lesion.shape)} {lesion.kind} in {place}"


def findings(lesions: Sequence[Lesion]) -> str:
    """All lesions, or that there is none."""
    phrases = [lesion_phrase(lesion) for lesion in lesions]
    if not phrases:
        return "no lesion"
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def device_phrase(scene: Scene) -> str:
    """Which device there is, as a clause."""
    if scene.device is None:
        return "no medical device is present"
    return f"a {scene.device.kind} is in place"


def laterality_phrase(scene: Scene) -> str:
    """On which side the single organs lie, as a clause; empty where a region has none."""
    organs = [organ for organ in scene.organs if organ.name in single_organs(scene.region)]
    return " and ".join(f"the {organ.name} lies on the {organ.side} side" for organ in organs)


def single_organs(region: str) -> list[str]:
    """A region's organs that lie on one side."""
    return [
        name
        for name in organs_of(region)
        if not ORGANS[name].paired and not ORGANS[name].is_central
    ]


def caption(scene: Scene, wording: int) -> str:
    """A scene in one or two sentences that say everything that can be asked about it.

    Args:
        scene: what is seen.
        wording: any number; chooses among the wordings.
    """
    template = _CAPTIONS[wording % len(_CAPTIONS)]
    text = template.format(
        Modality=capital(with_modality(scene.modality)),
        modality=with_modality(scene.modality),
        region=scene.region,
        findings=findings(scene.lesions),
        Findings=capital(findings(scene.lesions)),
        Device=capital(device_phrase(scene)),
    )
    laterality = laterality_phrase(scene)
    return f"{text} {capital(laterality)}." if laterality else text


def capital(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]
