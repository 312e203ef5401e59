-- Days that are over are found by a tree: freed pages are filled again, so a block range soon holds rows of all days.
CREATE INDEX inbox_expires_on ON inbox (expires_on) WHERE expires_on IS NOT NULL;
DROP INDEX inbox_expiry;
