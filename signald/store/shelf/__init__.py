"""The shelf: the blobs of one principal, or of one anonymous session, as one aggregate."""
