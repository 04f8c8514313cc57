"""Sentences of the phantom world: questions in several wordings, and phrases about a scene."""

from collections.abc import Sequence

from exgra_med.lab.phantom.scene import ORGANS, SHAPES, Lesion, Scene, organs_of

WORDINGS: dict[str, tuple[str, ...]] = {
    "modality": (
        "Which imaging modality is this?",
        "How was this image taken?",
        "What kind of scan is shown?",
    ),
    "modality_check": (
        "Is this {asked_scan}?",
        "Was this image taken by {asked_modality}?",
        "Is {asked_scan} shown here?",
    ),
    "region": (
        "Which region of the body is shown?",
        "What part of the body does this image show?",
        "Which body region was imaged?",
    ),
    "laterality": (
        "Is the {asked_organ} on the left or the right side?",
        "On which side is the {asked_organ}, left or right?",
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
        "Is there a lesion in the {asked_organ}?",
        "Does the {asked_organ} contain a lesion?",
        "Is the {asked_organ} affected by a lesion?",
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
        "Is the lesion in {place} {asked_shape}?",
        "Does the lesion in {place} look {asked_shape}?",
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

EXTENDED: dict[str, tuple[str, ...]] = {
    "modality": (
        "This is {context}, and it shows {findings}.",
        "The image was taken by {answer}: it is {context} with {findings}.",
    ),
    "modality_check:yes": (
        "Yes, this is {context}, and it shows {findings}.",
        "Yes, {context} is shown, with {findings}.",
    ),
    "modality_check:no": (
        "No, this is not {asked_scan} but {context}, with {findings}.",
        "No, instead of {asked_scan} this is {context}; it shows {findings}.",
    ),
    "region": (
        "The {region} is shown on {scan}, with {findings}.",
        "This is {context}, so the region is the {region}; it shows {findings}.",
    ),
    "laterality": (
        "The {asked_organ} lies on the {answer} side on {context}, which shows {findings}.",
        "On {context}, the {asked_organ} is seen on the {answer}, with {findings}.",
    ),
    "count:zero": (
        "There are zero lesions: nothing abnormal is seen on {context}.",
        "The number of lesions is zero on {context}.",
    ),
    "count:one": (
        "There is one lesion on {context}: {findings}.",
        "Only one lesion is seen on {context}: {findings}.",
    ),
    "count": (
        "There are {answer} lesions on {context}: {findings}.",
        "The number of lesions on {context} is {answer}: {findings}.",
    ),
    "lesion_present:yes": (
        "Yes, {context} shows {findings}.",
        "Yes, there is {findings} on {context}.",
    ),
    "lesion_present:no": (
        "No, there is no lesion on {context}.",
        "No, {context} is free of lesions.",
    ),
    "lesion_in_organ:yes": (
        "Yes, there is {finding} on {context}.",
        "Yes, the {asked_organ} is affected by {finding} on {context}.",
    ),
    "lesion_in_organ:no": (
        "No, the {asked_organ} is free of lesions on {context}; what is seen is {findings}.",
        "No, {context} shows no lesion in the {asked_organ}, but {findings}.",
    ),
    "organ": (
        "The {answer} is affected: {context} shows {finding}.",
        "The organ is the {answer}, where there is {finding} on {context}.",
    ),
    "place": (
        "{Place} is affected: {context} shows {finding}.",
        "The lesion lies in {place}, where {context} shows {finding}.",
    ),
    "side": (
        "It is on the {answer} side: {context} shows {finding}.",
        "The lesion lies on the {answer}, where there is {finding} on {context}.",
    ),
    "shape:round": (
        "It is round: {context} shows {finding}.",
        "The shape is round; there is {finding} on {context}.",
    ),
    "shape": (
        "It has the shape of a {answer}: {context} shows {finding}.",
        "The shape is a {answer}; there is {finding} on {context}.",
    ),
    "shape_check:yes": (
        "Yes, it is {asked_shape}: {context} shows {finding}.",
        "Yes, there is {finding} on {context}.",
    ),
    "shape_check:no": (
        "No, it is not {asked_shape}: {context} shows {finding}.",
        "No, instead of being {asked_shape} this is {finding} on {context}.",
    ),
    "kind": (
        "It is {article} {answer}: {context} shows {finding}.",
        "There is {finding} on {context}.",
    ),
    "size": (
        "The {kind} is {answer}: {context} shows {finding}.",
        "It is {answer}; there is {finding} on {context}.",
    ),
    "contrast": (
        "The {kind} appears {answer}: {context} shows {finding}.",
        "It is {answer} beside the tissue around it; there is {finding} on {context}.",
    ),
    "comparison:yes": (
        "Yes, it is the larger one: there is {finding}, and {other_finding} on {context}.",
        "Yes, {context} shows {finding}, which is larger than {other_finding}.",
    ),
    "comparison:no": (
        "No, it is the smaller one: there is {finding}, and {other_finding} on {context}.",
        "No, {context} shows {finding}, which is smaller than {other_finding}.",
    ),
    "device_present:yes": (
        "Yes, {device} on {context}.",
        "Yes, {device}; {context} shows {findings}.",
    ),
    "device_present:no": (
        "No, {device} on {context}.",
        "No, {context} shows no medical device; it shows {findings}.",
    ),
    "device": (
        "{Device} on {context}.",
        "{Device}; {context} shows {findings}.",
    ),
}
"""Family, or family and answer -> wordings of the extended answer."""

NUMBERS = ("zero", "one", "two", "three")
WITH_ARTICLE = {
    "X-ray": "an X-ray",
    "CT": "a CT scan",
    "MRI": "an MRI",
    "ultrasound": "an ultrasound image",
}
ADJECTIVES = {shape: shape if shape == "round" else f"{shape}-shaped" for shape in SHAPES.values()}
_CAPTIONS = (
    "{Modality} of the {region} shows {findings}. {Device}.",
    "{Findings} can be seen on {modality} of the {region}. {Device}.",
    "In the {region} there is {findings}. {Device}. It is {modality}.",
)


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
    return f"a {lesion.size} {lesion.contrast} {ADJECTIVES[lesion.shape]} {lesion.kind} in {place}"


def findings(lesions: Sequence[Lesion]) -> str:
    """All lesions, or that there is none."""
    *first, last = [lesion_phrase(lesion) for lesion in lesions] or ["no lesion"]
    return f"{', '.join(first)} and {last}" if first else last


def device_phrase(scene: Scene) -> str:
    """Which device there is, as a clause."""
    device = scene.device
    return f"a {device.kind} is in place" if device else "no medical device is present"


def laterality_phrase(scene: Scene) -> str:
    """On which side the single organs lie, as a clause; empty where a region has none."""
    organs = [organ for organ in scene.organs if organ.name in single_organs(scene.region)]
    return " and ".join(f"the {organ.name} lies on the {organ.side} side" for organ in organs)


def single_organs(region: str) -> list[str]:
    """A region's organs that lie on one side."""
    organs = ((name, ORGANS[name]) for name in organs_of(region))
    return [name for name, organ in organs if not organ.paired and not organ.is_central]


def caption(scene: Scene, wording: int) -> str:
    """A scene in one or two sentences that say everything that can be asked about it."""
    template = _CAPTIONS[wording % len(_CAPTIONS)]
    text = template.format(
        Modality=capital(WITH_ARTICLE[scene.modality]),
        modality=WITH_ARTICLE[scene.modality],
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
