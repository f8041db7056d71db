"""What processes take: time and memory by role. Light, because one of them runs beside what is measured."""
