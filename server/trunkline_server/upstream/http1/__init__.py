"""The router's own HTTP/1.1 client, on asyncio's transports and the llhttp parser.

`client` is what the outside uses. A request is serialised by `request`, given to a `connection`
of its origin's `pool`, which `dial` opens; what comes back is gathered in an `exchange`, its
`headers` unread until somebody asks, and read through a `stream`, unpacked by `inflate` if it is
compressed.
"""
