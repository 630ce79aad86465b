"""Health checks of servers: what one check says and hears, what follows from its outcomes, and when which server is checked."""
