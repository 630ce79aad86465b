"""The lbctl command: what people and scripts type.

`main.app` is the command; each module beside it has one command, or those that belong together, and `doctor` and
`where` are rooms of their own. All of them talk to the controller by REST (`client`), print by `output`, and fail by
`failure.Failure`; `ovs` and `namespace` are what they see of this machine's Open vSwitch. They use the lower rooms for
what is the same on both sides, such as the site file and the flows that `where` works out. Nothing imports this room.
"""
