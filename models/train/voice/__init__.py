"""What trains, measures and packs the voice-commands bundles."""
