"""The platform `nodes`: a cluster whose nodes a file lists, or which join by a token."""
