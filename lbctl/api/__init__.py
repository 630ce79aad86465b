"""The REST API without a server: from a Request to a Response (docs/rest.md).

It may use every room below it: it stands above the control function's parts, and reads them through one object,
`shown.Shown`, which is given the parts by name. What it orders goes through `orders.Orders`. The Ryu app implements
these; its half for HTTP (ryu_apps/rest.py) calls `dispatch.dispatch`.

dispatch: dispatch, failure. shown: Shown, Parts. orders: Orders. The rest stays inside: routes (the one table of
routes), operations (what each does), views and metrics (from Shown to answers), types (the models of requests and
answers), paging, problems, openapi.
"""
