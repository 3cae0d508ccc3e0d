"""Pictures of maps, side by side: by layer, by method, by model."""
