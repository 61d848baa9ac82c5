"""Power cuts and kills: what the disk may hold afterwards, and whether the database survives it."""
