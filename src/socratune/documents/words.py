"""The words and numbers of a text, so that two texts can be compared: stems, telling words, what can be reckoned."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import permutations

from socratune.judging import NUMBER_WORDS, with_digits

# English words that any answer may use, whatever its source says: they tell nothing that could be made up.

EVERYDAY = frozenset(
    """
    ability able about above absence absent accept accomplish accord account accountable achieve act acts add
    addition additional additionally admit advantage affect aforementioned afternoon afterwards again against age
    agree agreement aid aim allow allowed almost alone along already alternatively although altogether always amount
    amounts annually answer answerable anyone anything anyway appear apply approach appropriate approval
    approximately arise arrange arrangement arrival arrive as ask assign assistance ate attach attain attempt
    available avoid aware away back base basis bear bearing become began begin beginning begins belief belong below
    benefit best better big bigger biggest blew blow blown both bought bound bred breed bring broad brought build
    built burn burnt business but buy calculate call called came capable capacity care carried carry case catch
    caught cause caused causing certain certainly change characterise charge check choice choose chose chosen
    circumstances claim clear clearly close closed closing come coming common company compare compared comparison
    complete completion comprise concern condition conduct connect consequence consequently consider consist
    constitute contain continue contribute correct correspond cost count cover create crossing currently custom cut
    daily damage danger date deal decide decision define definition degree deliver delivery denote depart departure
    depend depict depth describe deserve designate despite determine develop device did differ difference different
    difficulty dig directly disadvantage distance distinct distinguish doing done double drank draw drawback drawn
    drew drink drive driven drove drunk due dug duration during duty each earlier earliest earn easily eat eaten
    effect effort either eligible else employ enable encounter end enough ensure enter entire entirely entitled
    equal equally equip equipment equivalent especially establish evening event eventually ever everyone everything
    exact exactly exceed except exist existence expect explain explanation extend extension extent extra face fact
    fail failure fall fallen far farther fast feature fed feed fell few fewer fight figure fill final find fine
    finish finishes firm fit fix fixed fled flee flew flow flown follow following for forbidden force forget forgive
    forgot forgotten form former forward fought found freeze frequent frequently froze frozen full fully function
    further furthermore gain gather gave general generally get give given giving go goes going gone good got great
    greater greatest grew group grow grown growth guarantee guard habit had half handle hang happen happened hard
    hardly has have having hear heard heavier heed height held help hence hid hidden hide higher highest hold hour
    hours however hung hurt idea identify immediately important in include included including increase indeed
    indicate individual inform instead institution intend intended intentionally involve issue item job join journey
    just keep keeping kept kind knew know knowledge known lack laid lain larger largest last lasted lasting later
    latest latter lay lead learn least leave leaving led lend length lent less let level lie light lighter like
    likely limit limited list lit little live located location longer longest look lose loss lost lot low lower
    lowest made main mainly maintain majority make making manage manner many mark match matter maximum mean means
    meant measure meet mention met method might mind minimum minus minute minutes missing mistaken moment month
    monthly months moreover morning mostly move movement much must name named namely near nearly necessary need
    needed neither nevertheless newer newest next nor normally notably note nothing notice number o'clock object
    obligation obliged observe obtain occasion occupy occur of offer often old older oldest only open opened opening
    operate operates opinion order ordinary organisation otherwise ought out outcome overall overcome overtaken own
    owner paid pair part particular particularly party pass past pay payment people perform perhaps period permit
    permitted person piece place placed plus point portion position possess possible possibly power precisely prefer
    prepare presence present prevent previous previously primarily prior probably problem proceed process produce
    production prohibited proper properly protect protection prove proved proven provide provided provision purpose
    purposefully put quantity quick quickly quite raise ran rang range rate rather ratio reach read ready real
    realise really reason receipt receive recognise record reduce reduction refer refrain refusal regard regarded
    regardless regular regularly regulation relate release rely remain remainder remaining removal remove render
    replace replacement reply report represent request require required requirement respective respectively respond
    response responsible rest result retain return reveal ridden ride rise risen risk rode role rose rule run rung
    said same sang sank sat satisfy saw say see seem seen selection sell send sent separate separately sequence
    series serve served serves set settle several share shed shine shone shoot shorter shortest shot should show
    shown shut side similar similarly simple simply since single sink sit situated situation size skill sleep slept
    slid slide slightly slow smaller smallest so sold solely solution some somebody someone something sooner sort
    sought speak specific specifically specified specify spend spent split spoke spoken spread spun stand standing
    start state stated status stay steal step stick still stole stolen stood stop stops straight strength strictly
    strike struck stuck subject subsequently success such suffice sufficient suit suitable sum sung sunk supply
    support suppose supposed sure surely swam sweep swept swore sworn swum take taller tallest task taught tear tell
    tend term than themselves thereby therefore thing think though thought threw through throughout throw thrown
    thus tie told too took tool tore torn total toward towards tradition treat tried triple true try turn twice type
    typically ultimately unable under undergo understand understood undertake unit unless unlike unlikelihood
    unlikely until upon usage use used useful using usual usually value various vary version view visit wait wake
    want warn watch way wear week weekly weeks weight well went whatever whenever whereas wherever whether while
    whole why wide width will wind wish withdrawn withdrew within without woke woken wore work worked works world
    worn would wound write written wrong wrote yearly yet yield younger youngest
    """.split()  # noqa: SIM905
)


ROOT, ENDING = 4, 4
"""Letters of a root at least, and of what may stand behind it."""
FEWEST_COUNTED = 3
"""Numbers of a list whose length an answer may give."""

_WORD = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*")
_DASH = str.maketrans("‐‑‒–—−’‘“”„«»", '------\'\'"""""')
_UNSUPPORTING = frozenset(
    """the a an of to in on at for by and or with from as into over under is are was were be been being it its they them
    their he she his her this that these those there then than so such which who whom whose what when where why how do
    does did has have had can could will would should may might must because if not no yes about also only both each
    every all one two more most very after before between during while up out off down
    time times year years day way kind stay stays stand stands take takes taken go goes come comes get gets make makes
    together roughly instead finally first last now still jahr zeit année año
    der die das ein eine einen einem einer und oder ist sind war waren wird werden von zu zum zur im in am an auf mit
    für aus bei nach durch den dem des sich er sie es weil wenn dass nicht auch
    le la les un une des et ou est sont était de du en au aux par pour avec dans sur il elle que qui ne pas car
    über unter zwischen gegen während worden geworden wurde wurden
    el los las una y o es son era del al por para con como su se lo no porque""".split()  # noqa: SIM905
)
_UNITS = (2, 7, 12, 24, 60, 100, 1000)
"""Two of a pair, days, months, hours, minutes, and the metric ones."""
_ONE_OR_TWO = re.compile(r"\b(?:one|two)\b", re.IGNORECASE)
_LISTED = re.compile(r"(?m)^\s*\d{1,2}[.)]\s")  # the numbers of a list are none of its content
_THOUSANDS = re.compile(r"(?<=\d)[,\u202f\u00a0](?=\d{3}\b)")
_BELOW_ZERO = re.compile(r"\b(?:below|under|above) zero\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
_WITHIN = re.compile(r"(?<=[^\s.!?:\"“(] )\w[\w-]+")
_ENDINGS = (("s",), ("ing", "ed", "en"), ("ation", "er", "est", "ly"), ("e", "y", "i"))


@lru_cache(maxsize=1 << 16)
def folded(word: str) -> str:
    """In small letters, with plain dashes and quotes."""
    return unicodedata.normalize("NFKC", word).translate(_DASH).casefold()


@lru_cache(maxsize=1 << 10)
def folded_words(text: str) -> tuple[str, ...]:
    """The words and numbers, folded."""
    return tuple(map(folded, _WORD.findall(text)))


@lru_cache(maxsize=1 << 10)  # a question is compared with all others on its passage
def gist(text: str) -> frozenset[str]:
    """The stems of the words that tell something, and the numbers."""
    return frozenset(map(stem_of, content(text))) | frozenset(numbers_of(text))


def content(text: str) -> list[str]:
    """The words that tell something, folded."""
    words = (word for word in folded_words(text) if not word[0].isdigit())
    return [word for word in words if word not in _UNSUPPORTING and (len(word) > 2 or not word.isascii())]


@lru_cache(maxsize=1 << 16)
def stem_of(word: str) -> str:
    """Of two forms of a word the same (`burns`, `burning`; `lit`, not `little`)."""
    word = word.removesuffix("'s").removesuffix("’s")
    if word.endswith(("ies", "ied")) and len(word) > 4:
        word = f"{word[:-3]}y"
    if word.endswith("eed"):  # breed, seed: no ending
        return word
    for endings in _ENDINGS:
        for ending in endings:
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                word = word.removesuffix(ending)
                break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def borne(stem: str, stems: frozenset[str]) -> bool:
    """Whether a word, or one made of the same root, is among these: `western` bears `west`, `Seehandel` `Handel`."""
    return stem in stems or any(_of_one_root(stem, other) or (len(stem) > ROOT and stem in other) for other in stems)


def _of_one_root(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    if len(short) >= ROOT and long.startswith(short):
        return len(long) - len(short) <= ENDING
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(short))
    return same > ROOT and len(long) - same < ENDING


def names_in(text: str) -> frozenset[str]:
    """The words with a capital that no sentence begins with, folded."""
    return frozenset(folded(name) for name in _WITHIN.findall(text) if name[0].isupper())


def new_numbers(answer: str, known: Iterable[str], *, derived: bool = False) -> str:
    """The numbers of an answer that nothing known states, in words; digits of `31.` and `thirty-one` are the same.

    Args:
        derived: the sum, difference, product or quotient of two known numbers is known as well, and what conversion
            makes of one (days to a week).
    """
    if len(answer.split()) > 3:  # "the lower of the two", "a white one"
        answer = _ONE_OR_TWO.sub("", answer)
    stated = dict.fromkeys(numbers_of(answer))
    there = {number for text in known for number in numbers_of(text)} if stated else set[str]()
    if len(there) >= FEWEST_COUNTED:  # "three times: at 6:00, 12:00 and 18:00"
        there.add(str(len(there)))
    new = [number for number in stated if number not in there]
    if new and derived:
        reckoned = set(_reckoned(there))
        new = [number for number in new if _value(number) not in reckoned]
    return ", ".join(new)


def _reckoned(numbers: Iterable[str]) -> Iterator[float]:
    values = [value for number in numbers if (value := _value(number)) is not None]
    yield from (value * unit for value in values for unit in _UNITS)
    yield from (value / unit for value in values for unit in _UNITS)
    for one, other in permutations(values, 2):
        yield from (one + other, one - other, one * other)
        if other:
            yield one / other


def _value(number: str) -> float | None:
    """Of a date or a time of the day none."""
    return None if ":" in number or number.count(".") > 1 else float(number)


@lru_cache(maxsize=1 << 10)  # of an original and its siblings the evidence is the same
def numbers_of(text: str) -> tuple[str, ...]:
    """The numbers as digits, those in words too; the numbers of a list's items aside."""
    text = _BELOW_ZERO.sub("", text)
    if not NUMBER_WORDS.isdisjoint(folded_words(text)):
        text = with_digits(text)
    plain = _THOUSANDS.sub("", _LISTED.sub("", text))
    return tuple(number.lstrip("0") or "0" for number in _NUMBER.findall(plain))


EVERYDAY_STEMS = frozenset(map(stem_of, EVERYDAY))


# --- in which language a text is -----------------------------------------------------------------------------------

_COMMON = {
    "en": "the of and is was are in to a an that by from it at for with on has have not or",
    "de": "der die das und ist wird werden war in den dem von zu mit ein eine auf für aus im um",
    "fr": "le la les des et est une du dans par pour un sur avec au",
    "es": "el la los las y es una del en por para un con se al",
}
_COMMON_WORDS = {name: frozenset(words.split()) for name, words in _COMMON.items()}
SHORT = 25
"""Words of a note that is too short to tell."""
_LETTERS = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """`en`, `de`, `fr` or `es` by its commonest words; empty for any other. A note too short to tell is English."""
    words = [word.casefold() for word in _LETTERS.findall(text[:4000])]
    counts = {name: sum(map(common.__contains__, words)) for name, common in _COMMON_WORDS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] * 12 >= len(words) > 0:
        return best
    return "en" if text.isascii() and len(words) < SHORT else ""
