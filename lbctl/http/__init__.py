"""What an HTTP server of ours is made of besides its sockets: requests, responses, tokens, and errors as problem
details.

It uses the standard library only. The controller's REST API (lbctl.api) and the keeper (lbctl.keeper.process) are built
on it, and the two servers around them turn what they receive into a Request, and send the Response.

message: Request, Response, BODY_LIMIT. problems: RequestProblem, CONTENT_TYPE. tokens: read_token, missing_token,
TokenError.
"""
