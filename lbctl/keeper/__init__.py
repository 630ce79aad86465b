"""The keeper (seed figure 13, copy keeping function 53): keeps a copy of the entries of servers, and gives them back.

rows and batches are what goes over the wire; publisher and client belong to the control function; copy, journal,
sockets and server to the keeper. No Ryu, no eventlet, no numpy: a keeper runs where there is none of them.
"""
