"""Gateways in network namespaces, with real traffic between them.

The usual laboratory is two gateways on one wire, each with an address inside that only the tunnel reaches:

    10.1.0.1  (a) 192.0.2.1 ------------ 192.0.2.2 (b)  10.2.0.1
    fd01::1       2001:db8::1 ------ 2001:db8::2        fd02::1

`Lab` owns everything that is made: namespaces, processes and one temporary directory. It all goes when the
`with` block ends, however it ends; what a run leaves behind because it was killed, the next run removes.
"""
