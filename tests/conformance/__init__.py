"""How far signald's WebSocket is the one of RFC 6455, as judged by a suite we did not write and by rules it cannot see."""
