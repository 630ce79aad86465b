"""How an external IP gets from one LB to another: moves, takeovers from failed LBs, restorations.

`move.py` and `takeover.py` are state machines that read like the seed's steps, and ask for `actions`. `CarryingOut`
makes effects of them, `Forgetting` empties the old LB, and `Movement` takes the orders and keeps the records. What
the room needs of other parts stands in `needs.py`. failures/ and load/ give orders to Movement, and so does the API.
"""
