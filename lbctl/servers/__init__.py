"""Which server a new connection gets.

`schedulers` choose (with `maglev` for the hashed ones), `states` says which servers take connections: not one that is
down, drained, or full. Of a sliced service, `slices` deals out the slices, by the shares of `shares`, and `slicing`
lets them change hands. The room uses entries/ and site/; ground/serving.py holds one of each for every external IP, and
connections/ asks them. Who finds out that a server is down is health_checks/.
"""
