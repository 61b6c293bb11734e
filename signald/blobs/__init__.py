"""Media: where the bytes of blobs lie, behind one small contract."""
