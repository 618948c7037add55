"""What turns finished runs into tables: statistics over seeds."""
