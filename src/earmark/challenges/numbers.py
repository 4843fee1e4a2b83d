"""Numbers in words, 0 to 9999, in English, German, French and Spanish."""

from __future__ import annotations

from earmark.challenges.text import words

DIGITS = words("zero one two three four five six seven eight nine")
TEENS = words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")

DE_DIGITS = words("null eins zwei drei vier fünf sechs sieben acht neun")
_DE_TEENS = words("zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn")
_DE_TENS = words("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")

FR_DIGITS = words("zéro un deux trois quatre cinq six sept huit neuf")
_FR_TEENS = words("dix onze douze treize quatorze quinze seize dix-sept dix-huit dix-neuf")
_FR_TENS = words("vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt")

ES_DIGITS = words("cero uno dos tres cuatro cinco seis siete ocho nueve")
_ES_TEENS = words("diez once doce trece catorce quince dieciséis diecisiete dieciocho diecinueve")
_ES_TWENTIES = words(
    "veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete veintiocho veintinueve"
)
_ES_TENS = words("treinta cuarenta cincuenta sesenta setenta ochenta noventa")
_ES_HUNDREDS = words(
    "ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)


def english(value: int) -> str:
    """Spell a number from 0 to 9999.

    >>> english(1342)
    'one thousand three hundred forty two'
    """
    if value < 10:
        return DIGITS[value]
    if value < 20:
        return TEENS[value - 10]
    if value < 100:
        return TENS[value // 10 - 2] + (f" {DIGITS[value % 10]}" if value % 10 else "")
    size, unit = (1000, "thousand") if value >= 1000 else (100, "hundred")
    rest = f" {english(value % size)}" if value % size else ""
    return f"{english(value // size)} {unit}{rest}"


def german(value: int) -> str:
    """Spell a number from 0 to 9999.

    >>> german(1342)
    'eintausenddreihundertzweiundvierzig'
    """
    if value < 10:
        return DE_DIGITS[value]
    if value < 20:
        return _DE_TEENS[value - 10]
    if value < 100:
        tens, unit = _DE_TENS[value // 10 - 2], value % 10
        return f"{_short(unit)}und{tens}" if unit else tens
    size, word = (1000, "tausend") if value >= 1000 else (100, "hundert")
    return f"{_short(value // size)}{word}{german(value % size) if value % size else ''}"


def _short(unit: int) -> str:
    return "ein" if unit == 1 else DE_DIGITS[unit]


def french(value: int) -> str:
    """Spell a number from 0 to 9999.

    >>> french(1342), french(71), french(280)
    ('mille trois cent quarante-deux', 'soixante et onze', 'deux cent quatre-vingts')
    """
    if value < 10:
        return FR_DIGITS[value]
    if value < 20:
        return _FR_TEENS[value - 10]
    if value < 100:
        return _french_tens(value)
    size, word = (1000, "mille") if value >= 1000 else (100, "cent")
    many, rest = divmod(value, size)
    plural = "s" if size == 100 and many > 1 and not rest else ""
    head = word if many == 1 else f"{french(many)} {word}{plural}"
    return f"{head} {french(rest)}" if rest else head


def _french_tens(value: int) -> str:
    tens, unit = divmod(value, 10)
    if tens in (7, 9):
        unit += 10
    if value == 80:
        return "quatre-vingts"
    word = _FR_TENS[tens - 2]
    if not unit:
        return word
    return f"{word} et {french(unit)}" if unit in (1, 11) and tens < 8 else f"{word}-{french(unit)}"


def spanish(value: int) -> str:
    """Spell a number from 0 to 9999.

    >>> spanish(1342), spanish(100), spanish(2021)
    ('mil trescientos cuarenta y dos', 'cien', 'dos mil veintiuno')
    """
    if value < 10:
        return ES_DIGITS[value]
    if value < 20:
        return _ES_TEENS[value - 10]
    if value < 30:
        return _ES_TWENTIES[value - 20]
    if value < 100:
        return _ES_TENS[value // 10 - 3] + (f" y {ES_DIGITS[value % 10]}" if value % 10 else "")
    if value == 100:
        return "cien"
    many, rest = divmod(value, 1000 if value >= 1000 else 100)
    head = _ES_HUNDREDS[many - 1] if value < 1000 else "mil" if many == 1 else f"{spanish(many)} mil"
    return f"{head} {spanish(rest)}" if rest else head
