"""In which words: each wire that other programs speak, as a dialect of the service (`service.dialect`)."""
