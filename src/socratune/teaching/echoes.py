"""Detects answers that reveal the hint: a trace that is trained on must read as if there had been none.

Four marks, in twelve languages: it names a hint or its giver, it names an earlier attempt, it begins like a reply
(apology, thanks, "you are right"), or it repeats the hint's words. What the question or the passage says is no echo.
"""

from __future__ import annotations

import re
import unicodedata

HINT_RUN = 6
"""A run of this many words with more than three letters, none from the question, is the hint's own sentence. An answer
may use the hint's numbers and method.
"""

_HINT = {
    "en": r"(?:the|your|this|that|a|given) (?:\w+ )?hint(?! of)|hints? (?:says?|suggests?|tells?|given|reminds?)"
    r"|(?:follow\w*|us(?:e|ing)|based on|accord\w* to|per|given|thanks to|appl(?:y|ying)) "
    r"(?:the|your|this|that) (?:clue|tip|note|advice|guidance|suggestion)"
    r"|the (?:clue|tip|note|advice) (?:says|suggests|tells|reminds|mentions)"
    r"|(?:your|provided) (?:clue|tip|advice|guidance|suggestion|feedback)"
    r"|as (?:you )?(?:hinted|suggested|advised|instructed|recommended)"
    r"|you (?:mentioned|suggested|hinted|pointed out|told me|reminded me|advised)"
    r"|i (?:was|am|have been) (?:told|advised|reminded|given the|asked to)",
    "en, the answer": r"(?:expected|reference|supposed|given|known|stated) (?:answer|solution|result) (?:is|was|should)"
    r"|(?:the|correct|right) answer (?:is|was) (?:supposed|said|known|given|expected)\b"
    r"|(?:we|i) (?:know|are told|were told) (?:that )?the (?:\w+ )?answer (?:is|should)",
    "de": r"(?:(?:der|dem|den|im|zum|beim|vom|diese[mnr]?|laut|dein\w*|ihr\w*) ){1,2}(?:hinweis|tipp|ratschlag)\w*"
    r"|wie (?:vorgeschlagen|angedeutet|empfohlen|angeregt|du sagst|sie sagen)",
    "fr": r"(?:suivant|selon|après|grâce à|avec|comme|utilisant|pour) (?:l['’]|cet(?:te)? |ton |votre |la )"
    r"(?:indice|indication|astuce|suggestion)|(?:suivant (?:le|ton|votre)|ton|votre) conseil"
    r"|l['’]ind\w+ (?:dit|suggère|indique)|comme (?:suggéré|indiqué|conseillé|proposé)",
    "es": r"(?:según|siguiendo|indica|dice|sugiere|gracias a|usando) (?:la|tu|su|esta) (?:pista|sugerencia|indicación)"
    r"|(?:siguiendo (?:el|tu|su)|tu) consejo|la pista (?:dice|sugiere|indica)"
    r"|como (?:se )?(?:sugir\w+|suger\w+|indic\w+|me dij\w+)",
    "it": r"(?:secondo|seguendo|dice|indica|suggerisce|grazie|usando|con) (?:\w+ |al{0,2}['’] ?|l['’])"
    r"(?:tuo |suo )?(?:suggerimento|indizio|indicazione)|(?:seguendo il (?:tuo )?|tuo )consiglio"
    r"|(?:suggerimento|indizio) (?:dice|indica)|come (?:suggerito|indicato|consigliato)",
    "pt": r"(?:conforme|segundo|seguindo|acordo com|diz|indica|sugere|usando|com|pela) "
    r"(?:(?:a|sua|tua|essa|esta) )?(?:dica|pista|sugestão|indicação)|(?:seguindo o (?:seu )?|seu )conselho"
    r"|a dica (?:diz|sugere|indica)|como (?:sugerido|indicado)",
    "nl": r"(?:zoals|volgens|dankzij|voor) (?:de|je|jouw|uw|deze|die) (?:hint|tip|aanwijzing|suggestie)"
    r"|met (?:de|deze|je|jouw|uw) (?:hint|aanwijzing)|de (?:hint|tip|aanwijzing) (?:zegt|suggereert)"
    r"|zoals (?:gesuggereerd|aangegeven|voorgesteld|je zei)",
    "pl": r"(?:zgodnie ze?|według|dzięki|za|mówi|sugeruje|korzystając ze?) (?:t\w+ |twoj\w+ )?"
    r"(?:wskazówk\w+|podpowied\w+|sugesti\w+)|wskazówka (?:mówi|sugeruje)"
    r"|jak (?:\w*sugerowano|wskazano|podpowiedziano)",
    "ru": r"(?:по|следуя|согласно|благодаря|используя|из|в|за) (?:эт\w+ |ваш\w+ |тво\w+ )?подсказк\w+"
    r"|следуя (?:ваш\w+ |тво\w+ )?совету|подсказка (?:говорит|гласит)|(?:вы|ты) подсказал\w*"
    r"|как (?:и )?(?:было )?(?:подсказ|предлож|посовет)\w+",
    "zh": r"(?:根据|按照|依照|依据|遵循|按|照|从|如|用|谢你的|谢您的)(?:你的|您的|这个|这条|该|上述)?(?:提示|建议|线索)"
    r"|提示(?:说|中|告诉|指出|所说)|[如正][你您]所(?:说|提)",
    "ja": r"(?:ヒント|助言|アドバイス)(?:の通り|のとおり|通り|に従|によ|にあ|から|を使|をもと|に基づ|を参考|では)",
    "tr": r"ipucu\w* (?:göre|için|uyarak|doğrultusunda|söyl\w+|diyor|kullan\w+|sayesinde)"
    r"|(?:önerildiği|belirtildiği|söylendiği|dediğiniz|dediğin) gibi",
}
_ATTEMPT = {
    "en": r"(?:my (?:own )?(?:previous|earlier|first|last|prior|initial)|(?:the|your) (?:previous|earlier|prior)) "
    r"(?:attempt|answer|try|response|solution|reply)"
    r"|i (?:previously|earlier) \w+|i (?:was wrong|got it wrong|miscalculated) (?:before|earlier|last time)"
    r"|(?:corrected|revised) (?:answer|solution|response)|correcting my (?:answer|solution|response)"
    r"|(?:apologi[sz]e|sorry) for (?:the|my) (?:\w+ )?(?:confusion|error|mistake|oversight)",
    "de": r"mein\w* (?:erste|letzte|vorherige|vorige|frühere)\w? (?:antwort|versuch|lösung)\w*"
    r"|(?:vorherige|vorige|frühere)\w? (?:antwort|versuch|lösung)\w*|(?:vorhin|zuvor) (?:geirrt|verrechnet|\w+ ich)",
    "fr": r"m(?:a|on) (?:première?|dernière?) (?:réponse|tentative|essai)"
    r"|(?:réponse|tentative|essai|erreur) (?:précédente?|antérieure?|initiale?)|trompée? (?:avant|précédemment)",
    "es": r"mi (?:primera?|última?|último) (?:respuesta|intento)|(?:respuesta|intento|error) (?:anterior|previ[oa])"
    r"|equivoqué antes",
    "it": r"mi[oa] (?:prim[oa]|ultim[oa]) (?:risposta|tentativo)|(?:risposta|tentativo|errore) precedente"
    r"|sbagliato prima",
    "pt": r"minha (?:primeira|última) (?:resposta|tentativa)|(?:resposta|tentativa|erro) anterior|errei antes",
    "nl": r"mijn (?:vorige|eerdere|eerste|laatste) (?:antwoord|poging|oplossing)"
    r"|(?:vorige|eerdere) (?:antwoord|poging|oplossing)",
    "pl": r"(?:poprzedni\w*|wcześniejsz\w+) (?:odpowied\w+|prób\w+|rozwiązani\w+)"
    r"|moj\w+ pierwsz\w+ (?:odpowied\w+|prób\w+)",
    "ru": r"(?:предыдущ\w+|прошл\w+|прежн\w+) (?:ответ|попытк|решени)\w*|мо\w+ перв\w+ (?:ответ|попытк)\w*",
    "zh": r"(?:之前|先前|前面|上次|上一次|刚才|刚刚)的?(?:回答|答案|尝试|解答)|我刚才",
    "ja": r"(?:先ほど|さっき|前回|以前)の(?:回答|答え|解答|試み)",
    "tr": r"önceki (?:cevab|yanıt|deneme|çözüm)\w*|ilk (?:cevabım|denemem|yanıtım)\w*",
}
_REPLY = {
    "en": r"sorry|apologies|(?:i |my )apolog\w+|my (?:mistake|bad)|oops|aha|oh\W+(?:wait|right|i see)"
    r"|you(?:['’]| a)?re (?:\w+ )?(?:right|correct)|th?anks?(?: you)?\b(?= (?:for|so|very)|[,.!])"
    r"|good (?:catch|point)|i (?:made|see) (?:a|an|my|the) (?:\w+ )?(?:mistake|error)"
    r"|let me (?:correct(?! for)|try (?:again|this again)|redo|fix)|this time(?! of)|now i (?:see|understand|get)"
    r"|(?:up)?on (?:reconsideration|second thought)|i (?:now )?(?:see|reali[sz]e) (?:my|where i)",
    "de": r"entschuldig\w+|verzeihung|tut mir leid|danke|du hast recht|sie haben recht|diesmal|stimmt(?=[,.!])",
    "fr": r"désolée?|pardon|je m['’]excuse|excuse[zr]?\b|(?:toutes )?mes excuses|merci|(?:tu as|vous avez) raison",
    "es": r"perdón|lo siento|disculpa\w*|me disculpo|gracias(?! al? )|tienes? (?:toda la )?razón|me equivoqué|corrijo",
    "it": r"scus[ai]\w*|mi scuso|mi dispiace|chiedo scusa|grazie(?! a[gil]?\w* )|hai ragione|ho sbagliato",
    "pt": r"desculp[ea]\w*|peço desculpas?|perdão|obrigad[oa]|(?:você tem|tens) razão",
    "nl": r"excuses|mijn excuses|het spijt me|bedankt|dank (?:je|u)|(?:je hebt|u heeft) gelijk",
    "pl": r"przepraszam|wybacz\w*|dziękuję|dzięki|masz rację|ma pani? rację",
    "ru": r"извини\w*|прости\w*|прошу прощения|спасибо|(?:вы|ты) прав\w*",
    "zh": r"抱歉|很抱歉|对不起|不好意思|谢谢|感谢|[你您](?:说得|是)对",
    "ja": r"申し訳|すみません|ごめん|失礼しました|ありがとう|ご指摘|おっしゃる(?:通り|とおり)",
    "tr": r"özür diler\w*|üzgünüm|pardon|kusura bakma\w*|teşekkür\w*|haklısın\w*",
}
_FILLER = r"\W*(?:(?:ok(?:ay)?|hmm+|ah|oh|well|yes|alright|ja|oui|sí|да|はい)\W+)?"


_TOLD = re.compile(
    r"\b(?:according to|based on|from|as (?:stated|said|given) in|in) (?:the|this|that|your|given|provided) "
    r"(?:\w+ )?(?:passage|text|context|document|excerpt|note|reference|system message)\b"
    r"|\b(?:passage|text|context|excerpt|note|system message)(?: \w+)? "
    r"(?:says?|states?|mentions?|tells?|above|provided)\b"
    r"|\b(?:told|asked|given|have) (?:\w+ )?to arrive at\b|\bresult to arrive at\b"
    r"|\bbackwards? from the (?:result|answer)\b"
    r"|\b(?:laut|gemäß|nach) (?:dem|diesem) (?:text|abschnitt|kontext|dokument)\b"
    r"|\bim (?:text|abschnitt) (?:steht|heißt)\b"
    r"|\b(?:selon|d['’]après) (?:le|ce) (?:texte|passage|document)\b|\bsegún (?:el|este) (?:texto|pasaje|documento)\b"
    r"|\bsecondo (?:il|questo) (?:testo|brano|documento)\b|\bde acordo com o (?:texto|documento)\b"
    r"|根据(?:上述|以上|给定|提供的)?(?:文本|文章|段落|材料|资料)|(?:本文|文章|テキスト)によ(?:ると|れば)"
)
"""Phrases about a text that the reader does not have."""


def _phrases(by_language: dict[str, str]) -> re.Pattern[str]:
    apart = "|".join(pattern for language, pattern in by_language.items() if language not in ("zh", "ja"))
    return re.compile(rf"(?<!\w)(?:{apart})(?!\w)|{by_language['zh']}|{by_language['ja']}")


_HINT_OR_ATTEMPT = (_phrases(_HINT), _phrases(_ATTEMPT))
_AS_REPLY = re.compile(rf"{_FILLER}(?:{'|'.join(_REPLY.values())})")
_ANSWER = frozenset(["answer", "solution", "response", "result", "antwort", "réponse", "respuesta", "risposta"])
"""A question that says how to answer does not refer to an earlier answer."""
_TAGS = re.compile(r"</?(?:think|thinking|answer)>")
_LONG_WORD = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff]{4,}")
_CHARACTER = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
"""Kana and Chinese characters, which are written without spaces. Two count as one word."""


def echo(
    response: str, question: str, *, hint: str | None = None, passage: str | None = None, told: bool = False
) -> str | None:
    """Returns the words by which an answer reveals a hint or an earlier attempt, or None.

    Args:
        hint: what the student was told; a long run of its words in the answer is an echo, too.
        passage: the text the student had in view; like the question, it may be repeated.
        told: the student had something in view that the reader does not have: speaking of "the passage" is an echo too.
    """
    answer, known = _folded(_TAGS.sub(" ", response)), _folded(f"{question}\n{passage or ''}")
    if (match := _AS_REPLY.match(answer)) and match.group().strip() not in known:
        return match.group().strip()
    for phrases in (*_HINT_OR_ATTEMPT, *([_TOLD] if told else [])):
        for match in phrases.finditer(answer):
            if not _is_topic(match.group(), known):
                return match.group()
    return shared_run(hint, answer, known) if hint else None


def _is_topic(phrase: str, known: str) -> bool:
    """Returns True if question or passage mention it: `the first attempt` in `A runner's first attempt took 58 s`."""
    words = phrase.split()
    key = next((word for word in reversed(words) if len(word) > 3), phrase)
    return " ".join(words[-2:]) in known or key in set(re.findall(r"\w+", known)) - _ANSWER


def shared_run(left: str, right: str, known: str) -> str | None:
    """Returns the first long run of words that two texts share and a known text lacks. Known words are skipped."""
    left, right, known = _folded(left), _folded(right), _folded(known)
    asked = set(_LONG_WORD.findall(known))
    shared = _runs(left, asked) & _runs(right, asked)
    return min((run for run in shared if run not in known), default=None)


def _runs(text: str, asked: set[str]) -> set[str]:
    words = [word for word in _LONG_WORD.findall(text) if word not in asked]
    characters = "".join(_CHARACTER.findall(text))
    runs = {" ".join(words[at : at + HINT_RUN]) for at in range(len(words) - HINT_RUN + 1)}
    return runs | {characters[at : at + 2 * HINT_RUN] for at in range(len(characters) - 2 * HINT_RUN + 1)}


def _folded(text: str) -> str:
    """Returns the text in lower case with single spaces. The Turkish İ becomes an i."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("i\u0307", "i")
    return " ".join(folded.split())
