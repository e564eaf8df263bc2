"""Erasing a subject: its data key, its place in the search index, and whatever else could confirm a guess about it.

What stays is what evidence needs: that a version of this reference existed, and its opaque leaf in the log.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select, update

from bridge.storage.inbox import Inbox
from bridge.storage.keyring import KeyRing
from bridge.storage.outbox import OUTBOX
from bridge.storage.record_tables import RESOURCE, VERSION
from bridge.storage.search_index import IndexEntry, write_index


def erase_subject(connection: Connection, keyring: KeyRing, inbox: Inbox, subject: str) -> int:
    """Erase everything kept about a subject, in the caller's transaction; return how many record versions it had.

    Content becomes unreadable in every process at once. Digests go as well, since they are unsalted. Versions that
    were not yet in the log never will be: nothing about them was published. Raises ``Conflict`` for "node".
    """
    keyring.destroy(connection, subject)
    for row in connection.execute(select(RESOURCE).where(RESOURCE.c.subject == subject)).all():
        write_index(connection, [(IndexEntry(row.type, row.id, b"", {}), row.terms)])
    connection.execute(
        update(RESOURCE).where(RESOURCE.c.subject == subject).values(terms=b"", content_key=b"", deleted=True)
    )
    held = select(func.count()).select_from(VERSION).where(VERSION.c.subject == subject)
    versions = connection.execute(held).scalar_one()
    connection.execute(
        update(VERSION).where(VERSION.c.subject == subject).values(sealed=b"", digest=b"", source_digest=b"")
    )
    connection.execute(delete(OUTBOX).where(OUTBOX.c.subject == subject))
    inbox.erase(connection, subject)
    return int(versions)
