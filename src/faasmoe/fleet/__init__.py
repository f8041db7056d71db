"""The gateway's side of orchestrators: who has one, starting, links; and a node's, which has templates. No torch."""
