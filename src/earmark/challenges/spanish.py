"""Spanish: words, templates, rare terms, words that sound alike (lower case, numbers in words)."""

from __future__ import annotations

from earmark.challenges.numbers import ES_DIGITS, spanish
from earmark.challenges.text import Chooser, Grammar, Slot, words

_SLOTS: dict[str, list[str]] = {
    "name": words("maría josé carmen javier lucía andrés sofía íñigo elena raúl begoña tomás"),
    "surname": words("garcía muñoz ibáñez zúñiga hernández peña quiroga echeverría villalobos rodríguez"),
    "city": words("madrid barcelona sevilla lima bogotá quito valencia bilbao montevideo zaragoza córdoba cádiz"),
    "month": words("enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
    "day": words("lunes martes miércoles jueves viernes sábado domingo"),
    "season": ["la primavera", "el verano", "el otoño", "el invierno"],
    "weather": words("lluvia nieve viento niebla sol tormentas"),
    "food": words("pan mantequilla queso manzanas café té arroz azúcar miel vino patatas"),
    "who": ["el profesor", "la médica", "el niño", "mi vecino", "mi hermana", "nuestro padre", "la jueza"],
    "what": ["la llave", "la lámpara", "el libro", "la carta", "la puerta", "la ventana", "el reloj", "el paraguas"],
    "place": ["en el jardín", "en la cocina", "en la estación", "en el mercado", "junto a la iglesia", "en la playa"],
    "did": words("buscado encontrado olvidado vendido comprado visto pintado reparado abierto"),
    "do": words("buscar encontrar abrir cerrar vender reparar enseñar traer"),
    "device": ["la luz", "la calefacción", "la alarma", "la radio", "la televisión", "la música"],
    "room": ["del pasillo", "de la cocina", "del baño", "del salón", "del sótano"],
    "switch": ["enciende", "apaga", "revisa", "baja"],
    "adverb": words("despacio siempre mañana hoy juntos nunca"),
    "disease": words("apendicitis arritmia neumonía hipertiroidismo pancreatitis tuberculosis"),
    "term": [
        "la fotosíntesis", "el otorrinolaringólogo", "la idiosincrasia", "el usufructo", "la jurisprudencia",
        "la termodinámica", "el ferrocarrilero", "la desoxirribonucleasa", "el murciélago", "el paralelepípedo",
    ],
    "twins": [
        "pero y perro", "caro y carro", "casa y caza", "cero y cerro", "pelo y velo", "mesa y misa", "año y ano",
        "peso y beso", "coro y corro", "tos y dos", "coma y goma", "hombre y hambre", "sesenta y setenta",
    ],
    "alike": words("vaca baca tuvo tubo haya halla hola ola botar votar cayó calló hecho echo valla vaya"),
}  # fmt: skip


def _number(rng: Chooser) -> str:
    return spanish(rng.randrange(2, rng.choice((10, 100, 100, 1000, 10000))))


def _time(rng: Chooser) -> str:
    hour = spanish(rng.randrange(2, 13))
    return rng.choice((f"las {hour}", f"las {hour} y media", f"las {hour} menos cuarto", f"las {hour} y diez"))


_COMPUTED: dict[str, Slot] = {
    "n": _number,
    "d": lambda rng: rng.choice(ES_DIGITS),
    "date": lambda rng: spanish(rng.randrange(2, 32)),
    "time": _time,
    "year": lambda rng: f"mil novecientos {spanish(rng.randrange(10, 100))}",
}

SPANISH = Grammar(
    language="es",
    slots=_SLOTS,
    computed=_COMPUTED,
    templates=[
        "{name} viaja el {day} a {city}",
        "el tren a {city} sale a {time}",
        "la reunión es el {day} {date} de {month}",
        "he {did} {what} {place}",
        "{who} ha {did} {what} {place}",
        "{switch} {device} {room}",
        "cuesta {n} euros con {n} céntimos",
        "necesitamos {n} kilos de {food} y {n} de {food}",
        "puede usted {do} {what} {place}",
        "{n} más {n} son {n}",
        "en {season} hay {weather} y {weather} en {city}",
        "{name} {surname} nació en {month} de {year}",
        "mi número es el {d} {d} {d} {d} {d} {d}",
        "pon el despertador a {time} el {day}",
        "{who} camina {adverb} {place}",
        "si hay {weather} el {day} {who} se queda {place}",
        "llame a {name} {surname} el {day} a {time}",
        "{name} quiere {food} con {food} o {food}",
    ],
    rare=[
        "la doctora {surname} sospecha {disease} o {disease}",
        "{term} y {term} se explican en {city}",
        "la señora {surname} de {city} estudia {term}",
        "{term} no sustituye a {term}",
        "al señor {surname} de {city} le encontraron {disease}",
        "{name} {surname} enseña {term} en {city}",
    ],
    confusable=[
        "diga {twins} y después {twins}",
        "no {twins} sino {twins}",
        "{twins} o {twins} o {twins}",
        "las palabras son {alike} {alike} {alike} y {alike}",
        "son {n} o {n} o {n}",
    ],
)
