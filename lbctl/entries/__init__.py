"""What the controller knows of connections: the entries of one external IP (`access_table`), in words (`connection`),
what they are translated to (`translation`), echoes through a NAT gateway (`echo`), and packets that are held (`held`).

It uses `values` and the settings in `site`, and sends nothing. `ground` keeps one of each for every external IP;
`connections` changes them, `openflow` puts entries into bytes, `keeper` and `copies` copy them.
"""
