"""The client of a cluster, in gateway and orchestrators: links to nodes, and fan-outs of calls over them."""
