"""The daemon as systemd sees it: notifications, sockets, units."""
