"""Ways to serve a model to tenants, each as a process that is measured with all that it starts."""
