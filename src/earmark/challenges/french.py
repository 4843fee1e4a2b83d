"""French: words, templates, rare terms, words that sound alike (lower case, numbers in words)."""

from __future__ import annotations

from earmark.challenges.numbers import FR_DIGITS, french
from earmark.challenges.text import Chooser, Grammar, Slot, words

_SLOTS: dict[str, list[str]] = {
    "name": words("marie pierre hélène françois chloé théo camille jérôme amélie luc inès benoît"),
    "surname": words("lefèvre dubois garnier rousseau chevalier beaulieu marchand guérin fontaine leclerc"),
    "city": words("paris lyon marseille bordeaux lille genève bruxelles nantes strasbourg toulouse dijon rouen"),
    "month": words("janvier février mars avril mai juin juillet août septembre octobre novembre décembre"),
    "day": words("lundi mardi mercredi jeudi vendredi samedi dimanche"),
    "weather": ["de la pluie", "de la neige", "du vent", "du brouillard", "du soleil", "des orages"],
    "food": ["du pain", "du beurre", "du fromage", "des pommes", "du café", "du thé", "du riz", "du miel", "du vin"],
    "goods": words("pain beurre fromage café riz sucre farine pommes"),
    "who": ["le professeur", "la boulangère", "l'enfant", "mon voisin", "ma sœur", "notre père", "la juge"],
    "what": ["la clé", "la lampe", "le livre", "la lettre", "la porte", "la fenêtre", "le chien", "la montre"],
    "place": ["dans le jardin", "dans la cuisine", "à la gare", "au marché", "près de l'église", "derrière la maison"],
    "did": words("cherché trouvé oublié vendu acheté vu peint réparé ouvert"),
    "do": words("chercher trouver ouvrir fermer vendre réparer montrer apporter"),
    "device": ["la lumière", "le chauffage", "le réveil", "la radio", "la télévision", "la musique"],
    "room": ["dans le couloir", "dans la cuisine", "dans la salle de bain", "au salon", "à la cave"],
    "switch": ["allume", "éteins", "vérifie", "baisse"],
    "adverb": words("lentement toujours souvent ensemble demain aujourd'hui soudain"),
    "disease": ["une appendicite", "une arythmie", "une pneumonie", "une hyperthyroïdie", "un zona", "une pancréatite"],
    "term": [
        "la photosynthèse", "l'hippocampe", "le chrysanthème", "la serrurerie", "l'usufruit", "la magistrature",
        "l'anticonstitutionnalité", "la thermodynamique", "l'écureuil", "la quincaillerie", "l'oto-rhino",
    ],
    "twins": [
        "poisson et poison", "dessus et dessous", "vent et vin", "rue et roue", "pain et bain", "jeune et jaune",
        "feu et fou", "gâteau et cadeau", "bon et banc", "boire et poire", "cousin et coussin", "chat et jatte",
    ],
    "alike": words("vert verre vers ver mer mère maire sans cent sang sot seau sceau saut foi fois foie voix voie"),
}  # fmt: skip


def _number(rng: Chooser) -> str:
    return french(rng.randrange(2, rng.choice((10, 100, 100, 1000, 10000))))


def _time(rng: Chooser) -> str:
    hour = french(rng.randrange(2, 13))
    return rng.choice((f"{hour} heures", f"{hour} heures et demie", f"{hour} heures moins le quart"))


_COMPUTED: dict[str, Slot] = {
    "n": _number,
    "d": lambda rng: rng.choice(FR_DIGITS),
    "date": lambda rng: french(rng.randrange(2, 32)),
    "time": _time,
    "year": lambda rng: f"mille neuf cent {french(rng.randrange(10, 100))}",
}

FRENCH = Grammar(
    language="fr",
    slots=_SLOTS,
    computed=_COMPUTED,
    templates=[
        "{name} part {day} pour {city}",
        "le train pour {city} part à {time}",
        "la réunion aura lieu {day} {date} {month}",
        "j'ai {did} {what} {place}",
        "{who} a {did} {what} {place}",
        "{switch} {device} {room}",
        "cela coûte {n} euros et {n} centimes",
        "il nous faut {n} kilos de {goods} et {n} kilos de {goods}",
        "pouvez-vous {do} {what} {place}",
        "{n} plus {n} font {n}",
        "il y aura {weather} et {weather} à {city} {day}",
        "{name} {surname} vit à {city} depuis {month} {year}",
        "mon numéro est le {d} {d} {d} {d} {d} {d}",
        "mets le réveil à {time} pour {day}",
        "{who} marche {adverb} {place}",
        "si {who} vient {day} nous mangerons {food} et {food}",
        "appelez {name} {surname} {day} à {time}",
        "{name} voudrait {food} avec {food}",
    ],
    rare=[
        "le docteur {surname} soupçonne {disease} ou {disease}",
        "{term} et {term} seront au programme à {city}",
        "madame {surname} de {city} étudie {term}",
        "{term} ne remplace pas {term}",
        "on a trouvé {disease} chez monsieur {surname} de {city}",
        "{name} {surname} enseigne {term} à {city}",
    ],
    confusable=[
        "dites {twins} et puis {twins}",
        "non pas {twins} mais {twins}",
        "{twins} ou {twins} ou {twins}",
        "les mots sont {alike} {alike} {alike} et {alike}",
        "est-ce {n} ou {n} ou {n}",
    ],
)
