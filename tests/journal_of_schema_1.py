"""The tables of a release journal of schema 1, as devices have them; never to be changed."""

from typing import Final

TABLES: Final = """
CREATE TABLE daemon (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    orders INTEGER NOT NULL CHECK (orders >= 0),
    boot_id TEXT NOT NULL,
    was_clean INTEGER NOT NULL CHECK (was_clean IN (0, 1)),
    awake_s REAL NOT NULL CHECK (awake_s >= 0)
) STRICT;

CREATE TABLE releases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL CHECK (length(model) BETWEEN 1 AND 128),
    version INTEGER NOT NULL CHECK (version >= 1),
    manifest_sha256 TEXT NOT NULL
        CHECK (length(manifest_sha256) = 64 AND manifest_sha256 NOT GLOB '*[^0-9a-f]*'),
    digest TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state <> ''),
    stage INTEGER NOT NULL CHECK (stage >= 0),
    weights TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('automatic', 'manual')),
    source TEXT NOT NULL,
    "order" INTEGER NOT NULL CHECK ("order" >= 0),
    active INTEGER CHECK (active >= 1),
    active_source TEXT NOT NULL CHECK (active_source IN ('store', 'seed', '')),
    method TEXT NOT NULL
        CHECK (method IN ('availability-preserving', 'resource-preserving', '')),
    looks INTEGER NOT NULL CHECK (looks >= 0),
    awake_deadline_s REAL NOT NULL CHECK (awake_deadline_s >= 0),
    crashes INTEGER NOT NULL CHECK (crashes >= 0),
    cause TEXT NOT NULL,
    reason TEXT NOT NULL,
    variant TEXT NOT NULL,
    variant_reason TEXT NOT NULL,
    created_s REAL NOT NULL,
    updated_s REAL NOT NULL
) STRICT;

CREATE TABLE slots (
    model TEXT PRIMARY KEY CHECK (length(model) BETWEEN 1 AND 128),
    active INTEGER CHECK (active >= 1),
    active_source TEXT NOT NULL CHECK (active_source IN ('store', 'seed', '')),
    active_digest TEXT NOT NULL,
    previous INTEGER CHECK (previous >= 1),
    previous_source TEXT NOT NULL CHECK (previous_source IN ('store', 'seed', '')),
    previous_digest TEXT NOT NULL,
    disabled TEXT NOT NULL,
    CHECK (active IS NOT NULL OR active_source <> 'store'),
    CHECK (previous IS NOT NULL OR previous_source <> 'store'),
    CHECK (active IS NULL OR disabled = '')
) STRICT;

CREATE TABLE traffic (
    model TEXT NOT NULL REFERENCES slots (model) ON DELETE CASCADE,
    version INTEGER NOT NULL CHECK (version >= 1),
    percent INTEGER NOT NULL CHECK (percent BETWEEN 0 AND 100),
    PRIMARY KEY (model, version)
) STRICT;

CREATE TABLE overrides (
    model TEXT PRIMARY KEY CHECK (length(model) BETWEEN 1 AND 128),
    kind TEXT NOT NULL CHECK (kind IN ('hold', 'rollback')),
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    created_s REAL NOT NULL
) STRICT;

CREATE TABLE bad_digests (
    manifest_sha256 TEXT PRIMARY KEY
        CHECK (length(manifest_sha256) = 64 AND manifest_sha256 NOT GLOB '*[^0-9a-f]*'),
    model TEXT NOT NULL CHECK (length(model) BETWEEN 1 AND 128),
    version INTEGER NOT NULL CHECK (version >= 1),
    cause TEXT NOT NULL,
    reason TEXT NOT NULL,
    "order" INTEGER NOT NULL CHECK ("order" >= 0),
    created_s REAL NOT NULL
) STRICT;

CREATE TABLE history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    release_id INTEGER NOT NULL CHECK (release_id >= 0),
    model TEXT NOT NULL CHECK (length(model) BETWEEN 1 AND 128),
    version INTEGER NOT NULL CHECK (version >= 0),
    from_state TEXT NOT NULL,
    to_state TEXT NOT NULL,
    event TEXT NOT NULL CHECK (event <> ''),
    cause TEXT NOT NULL,
    reason TEXT NOT NULL,
    digest TEXT NOT NULL,
    numbers TEXT NOT NULL,
    wall_s REAL NOT NULL,
    awake_s REAL NOT NULL CHECK (awake_s >= 0),
    boot_id TEXT NOT NULL
) STRICT;

INSERT INTO daemon (only_row, orders, boot_id, was_clean, awake_s) VALUES (1, 0, '', 1, 0.0);
"""

GUARDS: Final = """
CREATE INDEX releases_by_model ON releases (model, id);
CREATE INDEX history_by_model ON history (model, id);

CREATE TRIGGER releases_identity
BEFORE UPDATE ON releases
WHEN new.id <> old.id OR new.model <> old.model OR new.version <> old.version
    OR new.manifest_sha256 <> old.manifest_sha256 OR new.created_s <> old.created_s
BEGIN
    SELECT RAISE(ABORT, 'what a release is never changes');
END;

CREATE TRIGGER releases_bounded
AFTER INSERT ON releases
WHEN (SELECT count(*) FROM releases) > 1000
BEGIN
    DELETE FROM releases WHERE id IN (
        SELECT id FROM releases AS old
        WHERE state IN ('committed', 'rolled-back', 'failed') AND id <> new.id AND NOT EXISTS (
            SELECT 1 FROM slots
            WHERE slots.model = old.model AND old.version IN (slots.active, slots.previous)
        )
        ORDER BY id LIMIT (SELECT count(*) FROM releases) - 1000
    );
END;

CREATE TRIGGER bad_digests_bounded
AFTER INSERT ON bad_digests
WHEN (SELECT count(*) FROM bad_digests) > 1000
BEGIN
    DELETE FROM bad_digests WHERE manifest_sha256 IN (
        SELECT manifest_sha256 FROM bad_digests WHERE manifest_sha256 <> new.manifest_sha256
        ORDER BY "order", created_s LIMIT (SELECT count(*) FROM bad_digests) - 1000
    );
END;

CREATE TRIGGER history_order
BEFORE INSERT ON history
WHEN new.id <> -1 AND new.id <= (SELECT coalesce(max(id), 0) FROM history)
BEGIN
    SELECT RAISE(ABORT, 'the history is only added to');
END;

CREATE TRIGGER history_of_release
BEFORE INSERT ON history
WHEN new.release_id <> 0 AND NOT EXISTS (
    SELECT 1 FROM releases
    WHERE id = new.release_id AND model = new.model AND version = new.version
)
BEGIN
    SELECT RAISE(ABORT, 'there is no such release');
END;

CREATE TRIGGER history_no_update
BEFORE UPDATE ON history
BEGIN
    SELECT RAISE(ABORT, 'the history is only added to');
END;

CREATE TRIGGER history_no_delete
BEFORE DELETE ON history
WHEN (SELECT count(*) FROM history) <= 10000 OR old.id <> (
    SELECT min(id) FROM history WHERE model = (
        SELECT model FROM history GROUP BY model ORDER BY count(*) DESC, min(id) LIMIT 1
    )
)
BEGIN
    SELECT RAISE(ABORT, 'the history is only added to');
END;

CREATE TRIGGER history_bounded
AFTER INSERT ON history
WHEN (SELECT count(*) FROM history) > 10000
BEGIN
    DELETE FROM history WHERE id = (
        SELECT min(id) FROM history WHERE model = (
            SELECT model FROM history GROUP BY model ORDER BY count(*) DESC, min(id) LIMIT 1
        )
    );
END;
"""
