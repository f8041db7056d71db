"""The platform `nodes`: a cluster whose nodes a file lists."""
