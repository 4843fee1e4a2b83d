"""English: words, templates, rare terms, words that sound alike."""

from __future__ import annotations

from earmark.challenges.numbers import DIGITS, english
from earmark.challenges.text import Chooser, Grammar, Slot, words

ORDINALS = words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fifteenth twentieth thirtieth"
)
RANKS = words("ace two three four five six seven eight nine ten jack queen king")

SLOTS: dict[str, list[str]] = {
    "name": words(
        "john mary peter anna david sarah michael laura robert emma james lucy thomas alice henry julia "
        "george helen martin sophie oliver grace daniel clara"
    ),
    "title": words("doctor mister captain professor"),
    "city": [
        *words(
            "london paris berlin rome madrid vienna boston chicago dublin oslo lisbon sydney tokyo moscow cairo athens"
        ),
        "new york",
    ],
    "country": words("germany france spain italy england ireland canada japan norway brazil india china"),
    "month": words("january february march april may june july august september october november december"),
    "day": words("monday tuesday wednesday thursday friday saturday sunday"),
    "animal": words("dog cat horse bird fish mouse cow sheep rabbit tiger lion bear wolf fox duck"),
    "animals": words("dogs cats horses birds cows sheep ducks rabbits wolves"),
    "colour": words("red blue green yellow black white brown grey orange purple silver golden"),
    "adjective": words(
        "big small old new young warm cold quick slow happy quiet heavy light strong clean bright dark "
        "soft hard rich strange simple empty deep wide beautiful famous dangerous"
    ),
    "food": words(
        "bread butter cheese apples coffee tea milk soup rice sugar salt chicken water wine honey "
        "potatoes chocolate eggs"
    ),
    "object": words(
        "book table chair window door lamp letter box bottle phone car bag key picture clock hammer knife "
        "cup coat hat ring newspaper camera bicycle guitar ticket umbrella"
    ),
    "place": words(
        "house garden school station market office hospital library church bridge river forest beach "
        "kitchen street park museum airport village mountain harbour factory hotel"
    ),
    "person": words(
        "man woman child girl boy teacher farmer doctor soldier driver lawyer sister brother mother "
        "father friend neighbour baker king queen student"
    ),
    "people": words("children people students friends workers soldiers women men"),
    "weather": words("rain snow wind sunshine fog thunder storms clouds"),
    "device": words(
        "computer server network printer radio television engine machine battery sensor microphone speaker router"
    ),
    "tech": words(
        "model token audio file password software memory keyboard update signal database message email "
        "program screen camera button"
    ),
    "past": words(
        "found lost bought sold saw took broke cleaned opened painted carried moved forgot borrowed "
        "followed watched remembered repaired"
    ),
    "went": words("went walked ran drove returned travelled hurried moved came"),
    "verb": words("find buy sell see take clean open paint carry move forget bring watch repair remember hide"),
    "intransitive": words("sing dance sleep work swim read write talk listen laugh wait travel cook play study"),
    "adverb": words(
        "slowly quickly often never always again today tomorrow yesterday together early late "
        "quietly carefully suddenly usually"
    ),
    "prep": [*words("in under behind near on beside above"), "in front of", "next to"],
    "command": words("start stop play pause open close save delete copy send print restart cancel"),
    "room": ["kitchen", "bedroom", "bathroom", "living room", "office", "garage", "hall", "cellar"],
    "switch": ["turn on", "turn off", "switch on", "switch off", "dim", "check"],
    "thing": ["lights", "heating", "alarm", "music", "fan", "television", "radio", "oven"],
    "suit": words("clubs hearts spades diamonds"),
    "unit": words(
        "metres miles kilometres pounds grams litres feet inches hours minutes seconds days weeks months years"
    ),
    "money": words("dollars euros pounds cents"),
    "question": words("where when why how"),
    "direction": words("left right north south east west up down"),
    "season": words("spring summer autumn winter"),
    "word": words(
        "yes no go stop help hello goodbye please thanks maybe because although between without through "
        "another question answer language history science nature century reason moment business government "
        "company problem system measure voice speech record verify claim evidence"
    ),
    "be": ["is", "was", "will be"],
    "shall": ["will", "can", "should", "must", "could", "would"],
    "subject": ["i", "you", "we", "they"],
}

#: Sentences of four words and more; {n} is a number, {ord} an ordinal, {time} a time of day.
TEMPLATES = [
    "the {adjective} {animal} {past} the {adjective} {object}",
    "{name} {past} the {object} {prep} the {place}",
    "{name} and {name} {went} to the {place} {adverb}",
    "the {person} {prep} the {place} {past} a {colour} {object}",
    "please {verb} the {colour} {object} {prep} the {place}",
    "my {person} {past} {n} {colour} {animals}",
    "{subject} {shall} {verb} the {object} {adverb}",
    "{subject} {shall} {intransitive} with the {person} in {city}",
    "{question} did the {person} {verb} the {object}",
    "{question} {shall} {subject} {verb} the {adjective} {object}",
    "the train to {city} leaves at {time}",
    "the flight from {city} to {city} is {adverb} on {day}",
    "the meeting is on {day} the {ord} of {month}",
    "{name} was born on the {ord} of {month} {year}",
    "it costs {n} {money} and {n} cents",
    "the {place} is {n} {unit} from the {place}",
    "there are {n} {people} in the {place}",
    "we need {n} {unit} of {food} for {name}",
    "i would like some {food} and {food} please",
    "do you want {food} or {food} with the {food}",
    "{title} {name} from {country} {went} to {city} in {month}",
    "{switch} the {thing} in the {room}",
    "{switch} the {thing} in the {room} at {time}",
    "set the {device} to {n} percent",
    "set an alarm for {time} on {day}",
    "{command} the {tech} on the {device}",
    "the {device} has lost the {tech} again",
    "the {tech} on the {device} {be} {adjective} and {adjective}",
    "call {name} at {d} {d} {d} {d} {d} {d}",
    "my number is {d} {d} {d} {d} {d}",
    "the code is {d} {d} {d} {d}",
    "go {direction} at the {place} and then turn {direction}",
    "in {season} the {weather} {be} very {adjective} in {country}",
    "there will be {weather} and {weather} in {city} on {day}",
    "the temperature in {city} is {n} degrees",
    "{n} plus {n} is {n}",
    "{n} {animals} and {n} {animals} were {prep} the {place}",
    "she said that the {person} {shall} {verb} it {adverb}",
    "he told {name} to {verb} the {object} before {day}",
    "if it rains on {day} {subject} {shall} {intransitive} in the {place}",
    "i have never {past} such a {adjective} {object}",
    "the {people} of {country} {adverb} {intransitive} in the {season}",
    "the {colour} {object} belongs to {name} not to {name}",
    "{name} likes to {intransitive} and {intransitive} in the {place}",
    "what is the {adjective} {tech} of this {device}",
    "who {past} the {object} from the {place} {adverb}",
    "the {rank} of {suit} and the {rank} of {suit}",
    "chapter {n} page {n} line {n}",
    "about {n} {unit} later the {person} {went} into the {place}",
    "{subject} {past} the {ord} {object} and the {ord} {object}",
    "as the {person} said the {adjective} {animal} {be} {prep} the {place}",
    "every {day} {name} {went} from the {place} to the {place}",
]

#: One to five words: commands, cards, digits, single words.
SHORT_TEMPLATES = [
    "{d}", "{d}", "{d} {d}", "{d} {d} {d}", "{d} {d} {d} {d}", "{n}", "{ord}", "{time}",
    "{rank} of {suit}", "{word}", "{word} {word}", "{name}", "{day}", "{month}", "{city}", "{command}",
    "{command} the {tech}", "{switch} the {thing}", "go {direction}", "{direction}", "{adjective} {object}",
    "{colour} {animal}", "the {person}", "{n} {unit}", "{title} {name}", "{adverb}", "{place}",
    "hello {name}", "thanks {name}", "{day} the {ord} of {month}", "{yesno}", "{yesno}",
]  # fmt: skip


def _number(rng: Chooser) -> str:
    limit = rng.choice((10, 20, 100, 100, 1000, 10000))
    return english(rng.randrange(limit))


def _year(rng: Chooser) -> str:
    return f"{rng.choice(('eighteen', 'nineteen', 'twenty'))} {english(rng.randrange(10, 100))}"


def _time(rng: Chooser) -> str:
    hour = english(rng.randrange(1, 13))
    late = english(rng.choice((5, 10, 15, 20, 25)))
    forms = (f"{hour} o'clock", f"half past {hour}", f"{late} past {hour}", f"{late} to {hour}")
    return rng.choice((*forms, f"{hour} {english(rng.randrange(10, 60))}"))


_COMPUTED: dict[str, Slot] = {
    "n": _number,
    "d": lambda rng: rng.choice(DIGITS),
    "ord": lambda rng: rng.choice(ORDINALS),
    "rank": lambda rng: rng.choice(RANKS),
    "time": _time,
    "year": _year,
    "yesno": lambda rng: rng.choice(("yes", "no", "go", "stop", "up", "down", "left", "right", "on", "off")),
    "twins": lambda rng: " and ".join(rng.choice(MINIMAL_PAIRS)),
    "alike": lambda rng: rng.choice(HOMOPHONES),
}

_RARE_SLOTS = {
    "drug": words(
        "acetaminophen amoxicillin azathioprine bisoprolol clopidogrel enoxaparin furosemide hydroxychloroquine "
        "ibuprofen levothyroxine metformin methotrexate omeprazole ondansetron pantoprazole prednisolone rivaroxaban"
    ),
    "disease": words(
        "appendicitis arrhythmia bronchiectasis cholecystitis endocarditis fibromyalgia glomerulonephritis "
        "hyperthyroidism ischaemia pancreatitis pyelonephritis sarcoidosis thrombocytopenia tuberculosis"
    ),
    "chemical": words(
        "acetylcholine benzaldehyde cyclohexane dimethylformamide ethylenediamine glutaraldehyde hexafluoride "
        "isopropanol methylcellulose nitrocellulose phenolphthalein tetrahydrofuran trichloroethylene ytterbium"
    ),
    "method": words(
        "backpropagation cryptanalysis defibrillation electrophoresis fermentation homogenisation interferometry "
        "liquefaction mammography photolithography sonication spectroscopy tracheotomy vulcanisation"
    ),
    "species": [
        "quercus robur", "homo sapiens", "escherichia coli", "drosophila melanogaster", "canis lupus",
        "arabidopsis thaliana", "staphylococcus aureus", "passer domesticus", "taraxacum officinale", "felis catus",
    ],
    "law": [
        "habeas corpus", "force majeure", "pro bono", "subpoena", "indemnity", "arbitration", "usufruct",
        "certiorari", "estoppel", "the escrow", "the affidavit", "the injunction",
    ],
    "surname": words(
        "featherstonehaugh cholmondeley mcgillicuddy przybylski nguyen okonkwo ramanujan szczepanski "
        "van-der-berg o'shaughnessy goldschmidt yamamoto beauchamp papadopoulos llewellyn"
    ),
    "town": words(
        "worcester llanelli reykjavik ljubljana antananarivo ouagadougou kirkcudbright albuquerque schenectady "
        "poughkeepsie gloucester leicester edinburgh vladivostok thessaloniki"
    ),
    "stack": words("kubernetes postgres kerberos grafana ansible terraform elasticsearch nginx jupyter pytorch"),
}  # fmt: skip

_RARE = [
    "the patient with {disease} was given {n} milligrams of {drug}",
    "{drug} and {drug} must not be taken together",
    "doctor {surname} from {town} suspects {disease} or {disease}",
    "rinse the {chemical} with {n} millilitres of {chemical}",
    "we compared {method} with {method} in {town}",
    "samples of {species} were kept in {chemical}",
    "{species} and {species} were found near {town}",
    "the lawyer of mister {surname} spoke about {law}",
    "{law} does not apply to missis {surname}",
    "restart {stack} before you update {stack} on node {n}",
    "{stack} lost its connection to {stack} at {time}",
    "missis {surname} moved from {town} to {town} in {year}",
    "the {method} of {chemical} takes {n} minutes",
]

HOMOPHONES: list[str] = words(
    "two too to there their they're right write rite see sea be bee buy by bye for four fore here hear hour our "
    "knew new no know one won son sun sew so sow their weather whether which witch wear where ware your you're "
    "flour flower meet meat mail male pair pear pare peace piece plain plane principal principle rain reign rein "
    "role roll sail sale scene seen site sight cite stair stare steal steel tail tale waist waste wait weight week "
    "weak whole hole would wood night knight"
)
MINIMAL_PAIRS: list[tuple[str, ...]] = [
    tuple(pair.split("/"))
    for pair in words(
        "ship/sheep bit/beat pull/pool bed/bad pen/pan cat/cut cot/caught thin/fin three/free vest/west berry/very "
        "light/right lice/rice pin/bin tin/din coat/goat sip/zip price/prize sink/think day/they chip/ship cheap/jeep "
        "sing/sin fifteen/fifty thirteen/thirty sixteen/sixty can/can't affect/effect accept/except pat/bat tie/die "
        "cap/gap fan/van sue/zoo mesh/mess yellow/jello walk/work hat/hut lock/rock glass/grass collect/correct"
    )
]
_CONFUSABLE = [
    "say {twins} and {twins} again",
    "not {twins} but {twins}",
    "the words are {twins} then {twins}",
    "write {alike} {alike} {alike} and {alike}",
    "i said {alike} not {alike} or {alike}",
    "they {alike} {alike} the {alike} by the {alike}",
    "is it {n} or {n} or {n}",
]

ENGLISH = Grammar(
    language="en",
    templates=TEMPLATES,
    slots={**SLOTS, **_RARE_SLOTS},
    computed=_COMPUTED,
    rare=_RARE,
    confusable=_CONFUSABLE,
)
"""The English grammar; `TEMPLATES`, `SHORT_TEMPLATES` and `SLOTS` are those that the embedded models learned from."""
