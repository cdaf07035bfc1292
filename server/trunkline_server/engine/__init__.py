"""The one attempt loop, and the ports that others implement."""
