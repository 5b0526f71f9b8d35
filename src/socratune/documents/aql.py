"""The AQL queries that Socratune sends, except for the user's own query in `--aql`.

The queries return keyset pages. A page starts behind the last key of the previous page, so the server keeps no state
and a page can be requested again after a lost connection. `@after` is "" for the first page, as no key is empty.
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
"""The documents with these keys that exist."""
