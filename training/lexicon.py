"""Words and templates of the sentence generator (lower case, numbers spelled out)."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


DIGITS = _words("zero one two three four five six seven eight nine")
TEENS = _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fifteenth twentieth thirtieth"
)
RANKS = _words("ace two three four five six seven eight nine ten jack queen king")

SLOTS: dict[str, list[str]] = {
    "name": _words(
        "john mary peter anna david sarah michael laura robert emma james lucy thomas alice henry julia "
        "george helen martin sophie oliver grace daniel clara"
    ),
    "title": _words("doctor mister captain professor"),
    "city": [
        *_words(
            "london paris berlin rome madrid vienna boston chicago dublin oslo lisbon sydney tokyo moscow cairo athens"
        ),
        "new york",
    ],
    "country": _words("germany france spain italy england ireland canada japan norway brazil india china"),
    "month": _words("january february march april may june july august september october november december"),
    "day": _words("monday tuesday wednesday thursday friday saturday sunday"),
    "animal": _words("dog cat horse bird fish mouse cow sheep rabbit tiger lion bear wolf fox duck"),
    "animals": _words("dogs cats horses birds cows sheep ducks rabbits wolves"),
    "colour": _words("red blue green yellow black white brown grey orange purple silver golden"),
    "adjective": _words(
        "big small old new young warm cold quick slow happy quiet heavy light strong clean bright dark "
        "soft hard rich strange simple empty deep wide beautiful famous dangerous"
    ),
    "food": _words(
        "bread butter cheese apples coffee tea milk soup rice sugar salt chicken water wine honey "
        "potatoes chocolate eggs"
    ),
    "object": _words(
        "book table chair window door lamp letter box bottle phone car bag key picture clock hammer knife "
        "cup coat hat ring newspaper camera bicycle guitar ticket umbrella"
    ),
    "place": _words(
        "house garden school station market office hospital library church bridge river forest beach "
        "kitchen street park museum airport village mountain harbour factory hotel"
    ),
    "person": _words(
        "man woman child girl boy teacher farmer doctor soldier driver lawyer sister brother mother "
        "father friend neighbour baker king queen student"
    ),
    "people": _words("children people students friends workers soldiers women men"),
    "weather": _words("rain snow wind sunshine fog thunder storms clouds"),
    "device": _words(
        "computer server network printer radio television engine machine battery sensor microphone speaker router"
    ),
    "tech": _words(
        "model token audio file password software memory keyboard update signal database message email "
        "program screen camera button"
    ),
    "past": _words(
        "found lost bought sold saw took broke cleaned opened painted carried moved forgot borrowed "
        "followed watched remembered repaired"
    ),
    "went": _words("went walked ran drove returned travelled hurried moved came"),
    "verb": _words("find buy sell see take clean open paint carry move forget bring watch repair remember hide"),
    "intransitive": _words("sing dance sleep work swim read write talk listen laugh wait travel cook play study"),
    "adverb": _words(
        "slowly quickly often never always again today tomorrow yesterday together early late "
        "quietly carefully suddenly usually"
    ),
    "prep": [*_words("in under behind near on beside above"), "in front of", "next to"],
    "command": _words("start stop play pause open close save delete copy send print restart cancel"),
    "room": ["kitchen", "bedroom", "bathroom", "living room", "office", "garage", "hall", "cellar"],
    "switch": ["turn on", "turn off", "switch on", "switch off", "dim", "check"],
    "thing": ["lights", "heating", "alarm", "music", "fan", "television", "radio", "oven"],
    "suit": _words("clubs hearts spades diamonds"),
    "unit": _words(
        "metres miles kilometres pounds grams litres feet inches hours minutes seconds days weeks months years"
    ),
    "money": _words("dollars euros pounds cents"),
    "question": _words("where when why how"),
    "direction": _words("left right north south east west up down"),
    "season": _words("spring summer autumn winter"),
    "word": _words(
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
