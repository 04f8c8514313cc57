"""What a run is: typed recipes, how they are read, the record a run leaves. No torch."""
