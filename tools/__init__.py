"""Programs for whoever works on the repository; none of them is installed."""
