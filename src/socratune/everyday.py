"""English words that any answer may use, whatever its source says: they tell nothing that could be made up.

Verbs of doing and being, words of measure, order, reason and manner; as stems are compared, one form of each will do,
irregular ones aside. Left out with purpose: names of things, persons, places, materials, colours, directions, times.
"""

from __future__ import annotations

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
