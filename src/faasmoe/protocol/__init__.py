"""What crosses between gateway and orchestrators. No torch."""
