"""How nodes join a cluster, and keep their certificates: the server's listener and the node's enrolment."""
