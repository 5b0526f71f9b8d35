"""Every AQL text that Socratune sends of its own accord; what `--aql` gives is the only other one.

All are keyset pages: a page starts behind the last key of the one before, so the server keeps nothing between two of
them, and a page can be asked again after a lost connection. `@after` is "" for the first page; no key is empty.
"""

PAGE = """
FOR d IN @@collection
  FILTER d._key > @after
  SORT d._key
  LIMIT @n
  RETURN d
"""
"""The next `@n` documents (or edges) of a collection."""

EDGES_OF = """
FOR d IN @@collection
  FILTER (d._from IN @ids OR d._to IN @ids) AND d._key > @after
  SORT d._key
  LIMIT @n
  RETURN d
"""
"""The next `@n` edges of an edge collection that begin or end at one of `@ids`."""

BY_KEY = """
FOR d IN @@collection
  FILTER d._key IN @keys
  RETURN d
"""
"""The documents with these keys, those that there are."""
