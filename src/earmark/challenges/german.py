"""German: words, templates, rare terms, words that sound alike (lower case, numbers in words)."""

from __future__ import annotations

from earmark.challenges.numbers import DE_DIGITS, german
from earmark.challenges.text import Chooser, Grammar, Slot, words

_SLOTS: dict[str, list[str]] = {
    "name": words("anna peter sabine jürgen katharina stefan heike matthias ursula björn greta moritz"),
    "surname": words("müller schröder weiß krüger schäfer jäger köhler böhm großmann szymanski"),
    "city": words("berlin hamburg münchen köln wien zürich leipzig dresden nürnberg bremen lübeck graz"),
    "month": words("januar februar märz april mai juni juli august september oktober november dezember"),
    "day": words("montag dienstag mittwoch donnerstag freitag samstag sonntag"),
    "ord": words("ersten zweiten dritten vierten siebten achten zehnten zwölften sechzehnten zwanzigsten"),
    "season": ["frühling", "sommer", "herbst", "winter"],
    "weather": words("regen schnee wind nebel gewitter sonnenschein"),
    "food": words("brot butter käse äpfel kaffee tee milch zucker reis wein honig kartoffeln"),
    "who": ["der lehrer", "die ärztin", "das kind", "der nachbar", "meine schwester", "unser vater", "die richterin"],
    "what": ["den schlüssel", "die lampe", "das buch", "den brief", "die tür", "das fenster", "den hund", "die uhr"],
    "place": ["im garten", "in der küche", "am bahnhof", "auf dem markt", "neben der kirche", "hinter dem haus"],
    "target": ["in den garten", "zum bahnhof", "auf den markt", "in die schule", "zur brücke", "ans meer"],
    "did": words("gesucht gefunden vergessen verkauft gekauft gesehen gemalt repariert geöffnet"),
    "do": words("suchen finden öffnen schließen holen verkaufen reparieren zeigen"),
    "device": ["das licht", "die heizung", "den wecker", "das radio", "den fernseher", "die musik"],
    "room": ["im flur", "in der küche", "im bad", "im wohnzimmer", "im keller"],
    "adverb": words("heute morgen langsam leise plötzlich immer niemals zusammen"),
    "switch": ["ein", "aus", "ab"],
    "disease": words("blinddarmentzündung herzrhythmusstörung lungenentzündung schilddrüsenüberfunktion gürtelrose"),
    "term": [
        "die donaudampfschifffahrt", "das streichholzschächtelchen", "die rechtsschutzversicherung",
        "die wahrscheinlichkeitsrechnung", "das quecksilberthermometer", "die zwangsvollstreckung",
        "die oberflächenspannung", "die grundstücksverkehrsgenehmigung", "das schlichtungsverfahren",
    ],
    "twins": [
        "miete und mitte", "höhle und hölle", "kirche und kirsche", "bären und beeren", "rate und ratte",
        "seide und seite", "tür und tier", "ofen und offen", "bieten und bitten", "küssen und kissen",
        "lehre und leere", "wände und wende", "rad und rat", "wal und wahl", "fünfzehn und fünfzig",
    ],
}  # fmt: skip


def _number(rng: Chooser) -> str:
    return german(rng.randrange(2, rng.choice((10, 100, 100, 1000, 10000))))


def _time(rng: Chooser) -> str:
    hour = german(rng.randrange(2, 13))
    return rng.choice(
        (f"{hour} uhr", f"halb {hour}", f"viertel nach {hour}", f"{hour} uhr {german(rng.choice((10, 42)))}")
    )


_COMPUTED: dict[str, Slot] = {
    "n": _number,
    "d": lambda rng: rng.choice(DE_DIGITS),
    "time": _time,
    "year": lambda rng: f"neunzehnhundert{german(rng.randrange(10, 100))}",
}

GERMAN = Grammar(
    language="de",
    slots=_SLOTS,
    computed=_COMPUTED,
    templates=[
        "{name} fährt am {day} nach {city}",
        "der zug nach {city} fährt um {time} ab",
        "die sitzung ist am {day} dem {ord} {month}",
        "ich habe {what} {place} {did}",
        "{who} hat {what} {place} {did}",
        "schalte {device} {room} {switch}",
        "das kostet {n} euro und {n} cent",
        "wir brauchen {n} kilo {food} und {n} liter {food}",
        "können sie bitte {what} {place} {do}",
        "{n} plus {n} ist {n}",
        "im {season} gibt es in {city} oft {weather} und {weather}",
        "{name} {surname} wurde am {ord} {month} {year} geboren",
        "meine nummer ist {d} {d} {d} {d} {d} {d}",
        "stelle den wecker auf {time} am {day}",
        "{who} geht {adverb} {target}",
        "wenn es am {day} {weather} gibt bleibt {who} {place}",
        "rufen sie {name} {surname} am {day} um {time} an",
        "{name} möchte {food} mit {food} oder {food}",
    ],
    rare=[
        "frau doktor {surname} vermutet eine {disease} oder eine {disease}",
        "{term} wird am {ord} {month} in {city} besprochen",
        "ohne {term} gibt es auch {term} nicht",
        "herr {surname} aus {city} kennt {term}",
        "bei herrn {surname} aus {city} wurde im {month} eine {disease} festgestellt",
    ],
    confusable=[
        "sagen sie {twins} und dann {twins}",
        "nicht {twins} sondern {twins}",
        "{twins} oder {twins} oder {twins}",
        "sind es {n} oder {n} oder {n}",
    ],
)
