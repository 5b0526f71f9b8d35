"""Which way is worth it on one's own data: the same questions trained in several ways, read with intervals.

arms.py      the ways, and the settings that make each of them an ordinary run
controls.py  the teachers of the two controls, copied into the folders of their runs
writing.py   traces that somebody else writes: the references, the teacher in its own words or in the student's
folders.py   run folders that begin as copies of others, so that nothing is split, sampled or paid twice
work.py      one arm, one seed, one reading: from a begun folder to verdicts on the held-out questions
bench.py     all of them in order of usefulness, within the time and the money that were given
found.py     what is known so far
reading.py   what the verdicts say: the two-level bootstrap, the one sentence
report.py    the table, the page, the plot
"""
