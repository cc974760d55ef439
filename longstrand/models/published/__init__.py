"""Published families: their configurations, tensor names, and conversion both ways."""
