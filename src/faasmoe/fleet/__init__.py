"""The gateway's side of orchestrators: who has one, starting, links. No torch."""
