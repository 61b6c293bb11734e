"""The room: its log, records and members, as one aggregate."""
