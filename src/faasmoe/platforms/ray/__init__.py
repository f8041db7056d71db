"""The platform `ray`: a cluster whose nodes Ray tells. Ray starts agents and is asked for nodes; calls go past it."""
