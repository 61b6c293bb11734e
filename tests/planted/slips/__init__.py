"""The slips, by the part of signald they are planted in."""
