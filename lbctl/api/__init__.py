"""The REST API without a server: types, routes, and a dispatcher from request to response (docs/rest.md)."""
