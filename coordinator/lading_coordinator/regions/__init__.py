"""Several coordinators, none of which holds the whole market: what is told to the others, and what is heard of them."""
